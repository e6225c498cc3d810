"""The page with the guest's screen, in a Browser."""
import base64
import time

import pv
from browser import ENTER, SHIFT

WITH_SHIFT = '~!@#$%^&*()_+{}|:"<>?'

READ_CANVAS = '''
const canvas = document.querySelector('#screen canvas');
if (!canvas || !canvas.width)
    return null;
const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
let text = '';
for (let i = 0; i < data.length; i += 4)
    text += String.fromCharCode(data[i], data[i + 1], data[i + 2]);
return [canvas.width, canvas.height, btoa(text)];
'''


def open_page(browser, url):
    browser.open(url)
    pv.wait_until(lambda: browser.run('return document.getElementById("notice").hidden'), 20,
                  'connection of the page')


def check_quiet(browser):
    """Nothing on the console is an error or was refused by the policy."""
    bad = [line for line in browser.log() if line.startswith('SEVERE')]
    pv.check(not bad, f'errors on the page: {bad}')


def canvas(browser):
    """(width, height, RGB bytes) of what noVNC has drawn."""
    found = browser.run(READ_CANVAS)
    return found and (found[0], found[1], base64.b64decode(found[2]))


def place(browser, x, y):
    """Where a pixel of the guest's is on the page."""
    left, top, scale = browser.run(
        'const canvas = document.querySelector("#screen canvas");'
        'const box = canvas.getBoundingClientRect();'
        'return [box.left, box.top, box.width / canvas.width]')
    return round(left + (x + 0.5) * scale), round(top + (y + 0.5) * scale)


def click(browser, x, y):
    drag(browser, (x, y), (x, y))


def drag(browser, start, end):
    """With the left button, from one pixel of the guest's to another. Slowly: Weston may find what is under the
    pointer only with its next frame, a short press is a switch that bounces, for libinput, and a window
    that is slow to answer is not dragged when the button is up."""
    browser.move(*place(browser, *start))
    time.sleep(0.5)
    browser.button('pointerDown')
    time.sleep(1)
    browser.move(*place(browser, *end))
    time.sleep(0.5)
    browser.button('pointerUp')


def type_text(browser, text):
    """As on a keyboard of the United States, and no faster than a guest without acceleration reads."""
    for c in text:
        browser.keys(ENTER if c == '\n' else (SHIFT, c) if c.isupper() or c in WITH_SHIFT else c)
        time.sleep(0.1)


def number(browser, name):
    """A figure of the bar."""
    return browser.run(f"return parseFloat(document.getElementById('{name}').textContent)")


def programs(browser):
    """Rows of the details' table of programs."""
    return browser.run("return [...document.querySelectorAll('#contexts tr')]"
                       '.map((row) => [...row.cells].map((cell) => cell.textContent))')
