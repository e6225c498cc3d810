#version 450
// The instance index, taken from the draw command, is the cell of a 16 x 16 grid.
layout(location = 0) out vec4 color;
void main()
{
    const vec2 corners[4] = vec2[](vec2(0, 0), vec2(1, 0), vec2(0, 1), vec2(1, 1));
    vec2 cell = vec2(gl_InstanceIndex % 16, gl_InstanceIndex / 16);
    vec2 p = (cell + 0.1 + 0.8 * corners[gl_VertexIndex]) / 16.0;
    gl_Position = vec4(p * 2.0 - 1.0, 0.5, 1);
    color = vec4(cell / 15.0, 1.0 - cell.x / 15.0, 1);
}
