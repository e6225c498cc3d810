#!/usr/bin/env python3
"""Make C of the files of the page, so that the program needs none of them when it runs.

Usage: embed.py OUT.c FILE…; each file is served as /NAME, index.html also as /.
"""
import os
import sys

TYPES = {
    '.html': 'text/html; charset=utf-8',
    '.js': 'text/javascript; charset=utf-8',
    '.css': 'text/css; charset=utf-8',
    '.svg': 'image/svg+xml',
}


def c_bytes(data):
    lines = (data[i:i + 24] for i in range(0, len(data), 24))
    return '\n'.join('    ' + ' '.join(f'{byte},' for byte in line) for line in lines)


def main(out, *paths):
    arrays, rows = [], []
    for i, path in enumerate(paths):
        with open(path, 'rb') as file:
            data = file.read()
        name = os.path.basename(path)
        url = '/' if name == 'index.html' else '/' + name
        arrays.append(f'static const unsigned char file_{i}[] = {{\n{c_bytes(data)}\n}};\n')
        rows.append(f'    {{"{url}", "{TYPES[os.path.splitext(name)[1]]}", file_{i}, {len(data)}}},\n')
    with open(out, 'w', encoding='utf-8') as file:
        file.write('/* Made by src/display/web/embed.py from the files beside it. */\n'
                   '#include "display/web_page.h"\n\n'
                   + '\n'.join(arrays)
                   + '\nconst struct pv_web_file pv_web_files[] = {\n' + ''.join(rows) + '};\n'
                   + f'const size_t pv_web_file_count = {len(paths)};\n')


main(*sys.argv[1:])
