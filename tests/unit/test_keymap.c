/* Symbols and keys in three layouts, and what a client's hands make of Shift and AltGr. */
#include "unit.h"

#include "display/keymap.h"
#include "vm/keycode.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdio.h>
#include <string.h>
#include <xkbcommon/xkbcommon-keysyms.h>

#define SHIFT PV_KEYMAP_SHIFT
#define ALTGR PV_KEYMAP_ALTGR

struct wanted {
    uint32_t symbol, code, modifiers;
};

static void check_layout(const char *layout, const struct wanted *wanted, size_t count)
{
    struct pv_keymap *keymap;
    assert_int_equal(pv_keymap_create(layout, &keymap), 0);
    for (size_t i = 0; i < count; i++) {
        uint32_t code, modifiers;
        if (!pv_keymap_find(keymap, wanted[i].symbol, &code, &modifiers))
            fail_msg("%s has no key for %#x", layout, wanted[i].symbol);
        if (code != wanted[i].code || modifiers != wanted[i].modifiers)
            fail_msg("%s, %#x: key %u with %u instead of %u with %u", layout, wanted[i].symbol,
                     code, modifiers, wanted[i].code, wanted[i].modifiers);
    }
    pv_keymap_destroy(keymap);
}
#define CHECK_LAYOUT(layout, table) check_layout(layout, table, sizeof(table) / sizeof(table[0]))

static void test_layouts(void **state)
{
    static const struct wanted us[] = {
        {'a', KEY_A, 0},
        {'A', KEY_A, SHIFT},
        {'z', KEY_Z, 0},
        {'@', KEY_2, SHIFT},
        {'|', KEY_BACKSLASH, SHIFT},
        {'<', KEY_102ND, 0}, /* and Shift with the comma, for who holds it */
        {' ', KEY_SPACE, 0},
        {XKB_KEY_Return, KEY_ENTER, 0},
        {XKB_KEY_F1, KEY_F1, 0},
        {XKB_KEY_F12, KEY_F12, 0},
        {XKB_KEY_Delete, KEY_DELETE, 0},
        {XKB_KEY_Left, KEY_LEFT, 0},
        {XKB_KEY_Super_L, KEY_LEFTMETA, 0},
        {XKB_KEY_Control_R, KEY_RIGHTCTRL, 0},
        {XKB_KEY_Alt_L, KEY_LEFTALT, 0},
        {XKB_KEY_KP_Enter, KEY_KPENTER, 0},
        {XKB_KEY_KP_Add, KEY_KPPLUS, 0},
        {XKB_KEY_KP_Subtract, KEY_KPMINUS, 0},
        {XKB_KEY_KP_Multiply, KEY_KPASTERISK, 0},
        {XKB_KEY_KP_Divide, KEY_KPSLASH, 0},
        {XKB_KEY_KP_0, KEY_0, 0}, /* whatever the guest's num lock says, from here on */
        {XKB_KEY_KP_7, KEY_7, 0},
        {XKB_KEY_KP_9, KEY_9, 0},
        {XKB_KEY_KP_Decimal, KEY_DOT, 0},
        {XKB_KEY_KP_Separator, KEY_COMMA, 0},
        {XKB_KEY_KP_Home, KEY_HOME, 0},
        {XKB_KEY_KP_Down, KEY_DOWN, 0},
        {XKB_KEY_KP_Delete, KEY_DELETE, 0},
        {0x1000041, KEY_A, SHIFT}, /* 'A' by its Unicode number */
    };
    static const struct wanted de[] = {
        {'z', KEY_Y, 0},
        {'y', KEY_Z, 0},
        {'@', KEY_Q, ALTGR},
        {'{', KEY_7, ALTGR},
        {'\\', KEY_MINUS, ALTGR},
        {'|', KEY_102ND, ALTGR},
        {'>', KEY_102ND, SHIFT},
        {'/', KEY_7, SHIFT},
        {XKB_KEY_udiaeresis, KEY_LEFTBRACE, 0},
        {XKB_KEY_Udiaeresis, KEY_LEFTBRACE, SHIFT},
        {XKB_KEY_ssharp, KEY_MINUS, 0},
        {XKB_KEY_EuroSign, KEY_E, ALTGR},
        {XKB_KEY_KP_Separator, KEY_COMMA, 0},
        {XKB_KEY_KP_Enter, KEY_KPENTER, 0},
    };
    static const struct wanted fr[] = {
        {'a', KEY_Q, 0},
        {'q', KEY_A, 0},
        {'1', KEY_1, SHIFT},
        {'&', KEY_1, 0},
        {'@', KEY_0, ALTGR},
        {'m', KEY_SEMICOLON, 0},
        {'.', KEY_COMMA, SHIFT},
        {XKB_KEY_eacute, KEY_2, 0},
        {XKB_KEY_KP_7, KEY_7, SHIFT},
    };
    CHECK_LAYOUT("us", us);
    CHECK_LAYOUT("de", de);
    CHECK_LAYOUT("de:nodeadkeys", de);
    CHECK_LAYOUT("fr", fr);
}

static void test_no_layout(void **state)
{
    struct pv_keymap *keymap;
    char longest[300];
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(pv_keymap_create("klingon", &keymap), -EINVAL);
    assert_int_equal(pv_keymap_create("de:klingon", &keymap), -EINVAL);
    assert_int_equal(pv_keymap_create(longest, &keymap), -EINVAL);
    pv_keymap_destroy(NULL);
}

/* ---- typing ---- */

static char typed[512];

static void press(void *data, uint32_t code, bool down)
{
    const char *name = pv_keycode_name(code);
    assert_non_null(name);
    snprintf(typed + strlen(typed), sizeof(typed) - strlen(typed), "%s%c%s", typed[0] ? " " : "",
             down ? '+' : '-', name);
}

static struct pv_keymap *typing_map;
static struct pv_typist typist;

static void start_typing(const char *layout)
{
    assert_int_equal(pv_keymap_create(layout, &typing_map), 0);
    typist = (struct pv_typist){.keymap = typing_map};
}

static void type(uint32_t symbol, bool down)
{
    pv_typist_key(&typist, symbol, down, press, NULL);
}

static void check_typed(const char *wanted)
{
    assert_string_equal(typed, wanted);
    typed[0] = '\0';
}

static void test_shift_around_a_key(void **state)
{
    start_typing("us");
    type('A', true);
    type('A', false);
    check_typed("+shift +a -shift -a");
    type(XKB_KEY_Shift_R, true);
    type('A', true);
    type('A', false);
    check_typed("+shift_r +a -a");
    type('a', true); /* caps lock of the client */
    type('a', false);
    check_typed("-shift_r +a +shift_r -a");
    type(XKB_KEY_Tab, true); /* Shift has a meaning here */
    type(XKB_KEY_Tab, false);
    type(XKB_KEY_F5, true);
    type(XKB_KEY_F5, false);
    type('<', true);
    type('<', false);
    check_typed("+tab -tab +f5 -f5 +comma -comma");
    type(XKB_KEY_Shift_R, false);
    check_typed("-shift_r");
    pv_keymap_destroy(typing_map);
}

static void test_symbol_changes_while_held(void **state)
{
    start_typing("us");
    type(XKB_KEY_Shift_L, true);
    type('!', true);
    type(XKB_KEY_Shift_L, false);
    type('1', false);
    check_typed("+shift +1 -shift -1");
    type('1', false); /* nobody holds it */
    type('x', true);
    type('x', true); /* auto-repeat */
    type('x', false);
    check_typed("+x -x");
    pv_keymap_destroy(typing_map);
}

static void test_altgr(void **state)
{
    start_typing("de");
    type('@', true);
    type('@', false);
    check_typed("+alt_r +q -alt_r -q");
    type(XKB_KEY_ISO_Level3_Shift, true);
    type('@', true);
    type('@', false);
    type(XKB_KEY_ISO_Level3_Shift, false);
    check_typed("+alt_r +q -q -alt_r");
    type(XKB_KEY_Control_L, true);
    type(XKB_KEY_Alt_L, true);
    type(XKB_KEY_Delete, true);
    check_typed("+ctrl +alt +delete");
    pv_keymap_destroy(typing_map);
}

/* The guest's is on: Shift makes small letters of what it concerns, and nothing else. */
static void test_caps_lock(void **state)
{
    start_typing("de");
    typist.caps_lock = true;
    type('A', true);
    type('A', false);
    check_typed("+a -a");
    type('a', true);
    type('a', false);
    check_typed("+shift +a -shift -a");
    type('1', true);
    type('1', false);
    type('!', true);
    type('!', false);
    check_typed("+1 -1 +shift +1 -shift -1");
    type(XKB_KEY_Udiaeresis, true);
    type(XKB_KEY_Udiaeresis, false);
    type('@', true);
    type('@', false);
    check_typed("+bracket_left -bracket_left +alt_r +q -alt_r -q");
    type(XKB_KEY_Shift_L, true);
    type('A', true); /* both, or the client's caps lock is off */
    type('A', false);
    type('a', true);
    type('a', false);
    type(XKB_KEY_Shift_L, false);
    check_typed("+shift -shift +a +shift -a +a -a -shift");
    typist.caps_lock = false;
    type('A', true);
    type('A', false);
    check_typed("+shift +a -shift -a");
    pv_keymap_destroy(typing_map);
}

static void test_keypad(void **state)
{
    start_typing("us");
    type(XKB_KEY_KP_7, true);
    type(XKB_KEY_KP_Home, true);
    type(XKB_KEY_KP_7, false);
    type(XKB_KEY_KP_Home, false);
    check_typed("+7 +home -7 -home");
    type(XKB_KEY_Shift_L, true);
    type(XKB_KEY_KP_Add, true);
    type(XKB_KEY_KP_Add, false);
    type(XKB_KEY_KP_1, true);
    type(XKB_KEY_KP_1, false);
    type(XKB_KEY_KP_Enter, true);
    type(XKB_KEY_KP_Enter, false);
    type(XKB_KEY_Shift_L, false);
    check_typed("+shift +kp_add -kp_add -shift +1 +shift -1 +kp_enter -kp_enter -shift");
    pv_keymap_destroy(typing_map);
}

static void test_left_out(void **state)
{
    start_typing("us");
    type(XKB_KEY_Caps_Lock, true);
    type(XKB_KEY_Caps_Lock, false);
    type(XKB_KEY_Num_Lock, true);
    type(XKB_KEY_EuroSign, true);
    type(0, true);
    type(0xffffffff, true);
    type(0xffffffff, false);
    check_typed("");
    for (uint32_t symbol = 'a'; symbol <= 'z'; symbol++)
        type(symbol, true);
    for (uint32_t symbol = '0'; symbol <= '9'; symbol++)
        type(symbol, true);
    assert_int_equal(typist.held_count, PV_TYPIST_KEYS); /* nobody has so many fingers */
    typed[0] = '\0';
    pv_keymap_destroy(typing_map);
}

static void test_codes(void **state)
{
    for (uint32_t xt = 0; xt < 0x200; xt++) {
        uint32_t code = pv_keycode_from_xt(xt);
        assert_true(code < PV_KEY_LIMIT);
        if (xt > 0xff)
            assert_int_equal(code, 0);
        else if (code > KEY_KPDOT)
            assert_non_null(pv_keycode_name(code));
    }
    assert_int_equal(pv_keycode_from_xt(0x1e), KEY_A);
    assert_int_equal(pv_keycode_from_xt(0x9d), KEY_RIGHTCTRL);
    assert_int_equal(pv_keycode_from_xt(0x54), KEY_SYSRQ);
    assert_int_equal(pv_keycode_from_xt(0xb7), KEY_SYSRQ);
    assert_null(pv_keycode_name(PV_KEY_LIMIT));
    assert_null(pv_keycode_name(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_no_layout),
        cmocka_unit_test(test_shift_around_a_key),
        cmocka_unit_test(test_symbol_changes_while_held),
        cmocka_unit_test(test_altgr),
        cmocka_unit_test(test_caps_lock),
        cmocka_unit_test(test_keypad),
        cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
