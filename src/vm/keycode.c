#include "vm/keycode.h"

#include <linux/input-event-codes.h>
#include <stddef.h>

/* Up to here Linux has the scan codes of the PC/AT's keyboard as they are. */
#define SAME_UP_TO KEY_KPDOT
/* Print, with the prefix that a real one has. */
#define XT_PRINT_PREFIXED 0xb7

static const struct {
    const char *name;
    uint8_t xt; /* above SAME_UP_TO */
} keys[PV_KEY_LIMIT] = {
    /* clang-format off */
    [KEY_ESC] = {"esc"}, [KEY_1] = {"1"}, [KEY_2] = {"2"}, [KEY_3] = {"3"}, [KEY_4] = {"4"},
    [KEY_5] = {"5"}, [KEY_6] = {"6"}, [KEY_7] = {"7"}, [KEY_8] = {"8"}, [KEY_9] = {"9"},
    [KEY_0] = {"0"}, [KEY_MINUS] = {"minus"}, [KEY_EQUAL] = {"equal"},
    [KEY_BACKSPACE] = {"backspace"}, [KEY_TAB] = {"tab"}, [KEY_Q] = {"q"}, [KEY_W] = {"w"},
    [KEY_E] = {"e"}, [KEY_R] = {"r"}, [KEY_T] = {"t"}, [KEY_Y] = {"y"}, [KEY_U] = {"u"},
    [KEY_I] = {"i"}, [KEY_O] = {"o"}, [KEY_P] = {"p"}, [KEY_LEFTBRACE] = {"bracket_left"},
    [KEY_RIGHTBRACE] = {"bracket_right"}, [KEY_ENTER] = {"ret"}, [KEY_LEFTCTRL] = {"ctrl"},
    [KEY_A] = {"a"}, [KEY_S] = {"s"}, [KEY_D] = {"d"}, [KEY_F] = {"f"}, [KEY_G] = {"g"},
    [KEY_H] = {"h"}, [KEY_J] = {"j"}, [KEY_K] = {"k"}, [KEY_L] = {"l"},
    [KEY_SEMICOLON] = {"semicolon"}, [KEY_APOSTROPHE] = {"apostrophe"},
    [KEY_GRAVE] = {"grave_accent"}, [KEY_LEFTSHIFT] = {"shift"}, [KEY_BACKSLASH] = {"backslash"},
    [KEY_Z] = {"z"}, [KEY_X] = {"x"}, [KEY_C] = {"c"}, [KEY_V] = {"v"}, [KEY_B] = {"b"},
    [KEY_N] = {"n"}, [KEY_M] = {"m"}, [KEY_COMMA] = {"comma"}, [KEY_DOT] = {"dot"},
    [KEY_SLASH] = {"slash"}, [KEY_RIGHTSHIFT] = {"shift_r"}, [KEY_KPASTERISK] = {"kp_multiply"},
    [KEY_LEFTALT] = {"alt"}, [KEY_SPACE] = {"spc"}, [KEY_CAPSLOCK] = {"caps_lock"},
    [KEY_F1] = {"f1"}, [KEY_F2] = {"f2"}, [KEY_F3] = {"f3"}, [KEY_F4] = {"f4"}, [KEY_F5] = {"f5"},
    [KEY_F6] = {"f6"}, [KEY_F7] = {"f7"}, [KEY_F8] = {"f8"}, [KEY_F9] = {"f9"}, [KEY_F10] = {"f10"},
    [KEY_NUMLOCK] = {"num_lock"}, [KEY_SCROLLLOCK] = {"scroll_lock"}, [KEY_KP7] = {"kp_7"},
    [KEY_KP8] = {"kp_8"}, [KEY_KP9] = {"kp_9"}, [KEY_KPMINUS] = {"kp_subtract"},
    [KEY_KP4] = {"kp_4"}, [KEY_KP5] = {"kp_5"}, [KEY_KP6] = {"kp_6"}, [KEY_KPPLUS] = {"kp_add"},
    [KEY_KP1] = {"kp_1"}, [KEY_KP2] = {"kp_2"}, [KEY_KP3] = {"kp_3"}, [KEY_KP0] = {"kp_0"},
    [KEY_KPDOT] = {"kp_decimal"}, [KEY_102ND] = {"less", 0x56}, [KEY_F11] = {"f11", 0x57},
    [KEY_F12] = {"f12", 0x58}, [KEY_RO] = {"ro", 0x73}, [KEY_HIRAGANA] = {"hiragana", 0x77},
    [KEY_HENKAN] = {"henkan", 0x79}, [KEY_KATAKANAHIRAGANA] = {"katakanahiragana", 0x70},
    [KEY_MUHENKAN] = {"muhenkan", 0x7b}, [KEY_KPENTER] = {"kp_enter", 0x9c},
    [KEY_RIGHTCTRL] = {"ctrl_r", 0x9d}, [KEY_KPSLASH] = {"kp_divide", 0xb5},
    [KEY_SYSRQ] = {"print", 0x54}, [KEY_RIGHTALT] = {"alt_r", 0xb8}, [KEY_LINEFEED] = {"lf", 0x5b},
    [KEY_HOME] = {"home", 0xc7}, [KEY_UP] = {"up", 0xc8}, [KEY_PAGEUP] = {"pgup", 0xc9},
    [KEY_LEFT] = {"left", 0xcb}, [KEY_RIGHT] = {"right", 0xcd}, [KEY_END] = {"end", 0xcf},
    [KEY_DOWN] = {"down", 0xd0}, [KEY_PAGEDOWN] = {"pgdn", 0xd1}, [KEY_INSERT] = {"insert", 0xd2},
    [KEY_DELETE] = {"delete", 0xd3}, [KEY_MUTE] = {"audiomute", 0xa0},
    [KEY_VOLUMEDOWN] = {"volumedown", 0xae}, [KEY_VOLUMEUP] = {"volumeup", 0xb0},
    [KEY_POWER] = {"power", 0xde}, [KEY_KPEQUAL] = {"kp_equals", 0x59},
    [KEY_PAUSE] = {"pause", 0xc6}, [KEY_KPCOMMA] = {"kp_comma", 0x7e},
    [KEY_HANGEUL] = {"lang1", 0x72}, [KEY_HANJA] = {"lang2", 0x71}, [KEY_YEN] = {"yen", 0x7d},
    [KEY_LEFTMETA] = {"meta_l", 0xdb}, [KEY_RIGHTMETA] = {"meta_r", 0xdc},
    [KEY_COMPOSE] = {"compose", 0xdd}, [KEY_STOP] = {"stop", 0xe8}, [KEY_AGAIN] = {"again", 0x85},
    [KEY_PROPS] = {"props", 0x86}, [KEY_UNDO] = {"undo", 0x87}, [KEY_FRONT] = {"front", 0x8c},
    [KEY_COPY] = {"copy", 0xf8}, [KEY_OPEN] = {"open", 0x64}, [KEY_PASTE] = {"paste", 0x65},
    [KEY_FIND] = {"find", 0xc1}, [KEY_CUT] = {"cut", 0xbc}, [KEY_HELP] = {"help", 0xf5},
    [KEY_MENU] = {"menu", 0x9e}, [KEY_CALC] = {"calculator", 0xa1}, [KEY_SLEEP] = {"sleep", 0xdf},
    [KEY_WAKEUP] = {"wake", 0xe3}, [KEY_MAIL] = {"mail", 0xec},
    [KEY_BOOKMARKS] = {"ac_bookmarks", 0xe6}, [KEY_COMPUTER] = {"computer", 0xeb},
    [KEY_BACK] = {"ac_back", 0xea}, [KEY_FORWARD] = {"ac_forward", 0xe9},
    [KEY_NEXTSONG] = {"audionext", 0x99}, [KEY_PLAYPAUSE] = {"audioplay", 0xa2},
    [KEY_PREVIOUSSONG] = {"audioprev", 0x90}, [KEY_STOPCD] = {"audiostop", 0xa4},
    [KEY_HOMEPAGE] = {"ac_home", 0xb2}, [KEY_REFRESH] = {"ac_refresh", 0xe7},
    [KEY_F13] = {"f13", 0x5d}, [KEY_F14] = {"f14", 0x5e}, [KEY_F15] = {"f15", 0x5f},
    [KEY_F16] = {"f16", 0x55}, [KEY_F17] = {"f17", 0x83}, [KEY_F18] = {"f18", 0xf7},
    [KEY_F19] = {"f19", 0x84}, [KEY_F20] = {"f20", 0x5a}, [KEY_F21] = {"f21", 0x74},
    [KEY_F22] = {"f22", 0xf9}, [KEY_F23] = {"f23", 0x6d}, [KEY_F24] = {"f24", 0x6f},
    /* clang-format on */
};

const char *pv_keycode_name(uint32_t code)
{
    return code < PV_KEY_LIMIT ? keys[code].name : NULL;
}

uint32_t pv_keycode_from_xt(uint32_t xt)
{
    if (xt <= SAME_UP_TO)
        return xt;
    if (xt == XT_PRINT_PREFIXED)
        return KEY_SYSRQ;
    for (uint32_t code = SAME_UP_TO + 1; code < PV_KEY_LIMIT; code++) {
        if (keys[code].xt == xt)
            return code;
    }
    return 0;
}
