"""What an EDID says: enough to see that each one is right."""
import shutil
import subprocess

import pv


def check_block_sums(edid):
    pv.check(edid[:8] == bytes.fromhex('00ffffffffffff00'), 'the EDID has no EDID header')
    for at in range(0, len(edid), 128):
        pv.check(sum(edid[at:at + 128]) % 256 == 0, f'checksum of EDID block {at // 128}')
    pv.check_equal(edid[126], len(edid) // 128 - 1, 'count of EDID extensions')


def detailed_timing(data):
    """(width, height, refresh in Hz) of 18 bytes, or None for another descriptor."""
    clock = int.from_bytes(data[:2], 'little') * 10000
    if not clock:
        return None
    width, width_blank = data[2] | (data[4] >> 4) << 8, data[3] | (data[4] & 15) << 8
    height, height_blank = data[5] | (data[7] >> 4) << 8, data[6] | (data[7] & 15) << 8
    return width, height, clock / ((width + width_blank) * (height + height_blank))


def preferred(edid):
    """The preferred mode: the first detailed timing, or a DisplayID type VII one where the size
    needs more than 12 bits."""
    for at in range(128, len(edid), 128):
        if edid[at] == 0x70:  # DisplayID extension
            mode = _display_id(edid[at + 1:at + 127])
            if mode:
                return mode
    return detailed_timing(edid[54:72])


def _display_id(section):
    at, end = 4, 4 + section[1]
    while at + 3 <= end:
        tag, size = section[at], section[at + 2]
        if tag in (0x03, 0x22) and size >= 20:
            timing = section[at + 3:at + 23]
            clock = (int.from_bytes(timing[:3], 'little') + 1) * (10000 if tag == 0x03 else 1000)
            words = [int.from_bytes(timing[i:i + 2], 'little') for i in range(4, 20, 2)]
            width, width_blank = words[0] + 1, words[1] + 1
            height, height_blank = words[4] + 1, words[5] + 1
            return width, height, clock / ((width + width_blank) * (height + height_blank))
        at += 3 + size
    return None


def vendor(edid):
    """Three letters."""
    word = int.from_bytes(edid[8:10], 'big')
    return ''.join(chr(64 + (word >> shift & 31)) for shift in (10, 5, 0))


def check_conforms(edid):
    """edid-decode has nothing to say against it; without that program only the sums are checked."""
    check_block_sums(edid)
    program = shutil.which('edid-decode')
    if not program:
        return
    found = subprocess.run([program, '--check'], input=edid, capture_output=True, check=False)
    pv.check(found.returncode == 0, f'edid-decode: {found.stdout.decode(errors="replace")[-2000:]}')
