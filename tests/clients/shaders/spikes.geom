#version 450
// Three thin triangles out of each one.
layout(triangles) in;
layout(triangle_strip, max_vertices = 9) out;
layout(location = 0) in vec4 color_in[];
layout(location = 0) out vec4 color;
void main()
{
    vec4 middle = (gl_in[0].gl_Position + gl_in[1].gl_Position + gl_in[2].gl_Position) / 3.0;
    for (int i = 0; i < 3; i++) {
        gl_Position = gl_in[i].gl_Position;
        color = color_in[i];
        EmitVertex();
        gl_Position = mix(middle, gl_in[(i + 1) % 3].gl_Position, 0.3);
        color = vec4(1);
        EmitVertex();
        gl_Position = mix(middle, gl_in[(i + 2) % 3].gl_Position, 0.3);
        color = vec4(0.2, 0.2, 0.3, 1);
        EmitVertex();
        EndPrimitive();
    }
}
