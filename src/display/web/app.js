// The guest's screen (noVNC, over a WebSocket) and the figures of /status.json.
import RFB from './novnc/core/rfb.js';
import { fixCursor } from './cursor_fix.js';

const element = (id) => document.getElementById(id);
const STATUS_INTERVAL_MS = 1000;
const RETRY_FIRST_MS = 500, RETRY_LAST_MS = 4000;
const HISTORY_LENGTH = 60;
const LOOPBACK = ['localhost', '127.0.0.1', '[::1]'];

// A used token is worth nothing; a reload should not carry it.
history.replaceState(null, '', '/');

// ---- settings ----

function setting(name, otherwise) {
    try {
        return JSON.parse(localStorage.getItem(name)) ?? otherwise;
    } catch {
        return otherwise;
    }
}

function keep(name, value) {
    try {
        localStorage.setItem(name, JSON.stringify(value));
    } catch {
        // It lasts as long as the page, then.
    }
}

// ---- notice over the screen ----

function notice(title, text, { spinner = false } = {}) {
    element('notice').hidden = false;
    element('notice-title').textContent = title;
    element('notice-text').textContent = text;
    element('notice-spinner').hidden = !spinner;
}

function light(state) {
    element('light').className = state;
}

// ---- screen ----

let rfb = null;
let connected = false;
let retryMs = RETRY_FIRST_MS;

function connect() {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    rfb = new RFB(element('screen'), `${scheme}://${location.host}/websocket`,
                  { wsProtocols: ['binary'] });
    rfb.background = 'transparent';
    rfb.scaleViewport = true;
    rfb.resizeSession = element('resize').ariaPressed === 'true';
    // Nothing is worth saving between two ends of one machine.
    rfb.qualityLevel = LOOPBACK.includes(location.hostname) ? 9 : 6;
    rfb.compressionLevel = LOOPBACK.includes(location.hostname) ? 1 : 2;
    rfb.addEventListener('connect', onConnect);
    rfb.addEventListener('disconnect', onDisconnect);
    rfb.addEventListener('desktopname', (event) => {
        element('name').textContent = event.detail.name;
        document.title = `${event.detail.name} · PearVisor`;
    });
}

function onConnect() {
    connected = true;
    retryMs = RETRY_FIRST_MS;
    light('on');
    element('notice').hidden = true;
    rfb.focus();
}

async function onDisconnect() {
    connected = false;
    rfb = null;
    light('off');
    showScreen({ size: '' });
    const answer = await fetch('/status.json').catch(() => null);
    if (answer?.status === 403) {
        notice('This page’s session has ended', 'Open the newest address that PearVisor has printed.');
        return;
    }
    if (answer)
        notice('Connection lost', 'Connecting again …', { spinner: true });
    else
        notice('The guest has gone', 'PearVisor has ended, or cannot be reached. Waiting for it …');
    setTimeout(connect, retryMs);
    retryMs = Math.min(2 * retryMs, RETRY_LAST_MS);
}

// noVNC lets go of all keys when the window loses the focus; here they come back.
window.addEventListener('focus', () => rfb?.focus());

// ---- figures ----

const round = (value, digits) => value.toFixed(value >= 100 ? 0 : digits);
const or = (text) => (value) => (Number.isFinite(value) ? text(value) : '–');
const asFps = or((value) => round(value, 1));
const asMs = (value) => (value > 0 ? round(value, 1) : '–'); // 0: no frames to speak of
const asCount = or((value) => (value >= 1e6 ? `${round(value / 1e6, 1)} M`
                               : value >= 1e4 ? `${round(value / 1e3, 1)} k` : String(Math.round(value))));
const asBytes = or((value) => (value >= 1 << 30 ? `${round(value / (1 << 30), 2)} GiB`
                               : value >= 1 << 20 ? `${round(value / (1 << 20), 1)} MiB`
                               : `${round(value / 1024, 0)} KiB`));

// Totals of the last time, to make rates of what comes without one.
const last = new Map();

function rate(key, total, given) {
    const now = performance.now(), before = last.get(key);
    last.set(key, { total, now });
    if (Number.isFinite(given))
        return given;
    if (!Number.isFinite(total) || !before || total < before.total)
        return NaN;
    return 1000 * (total - before.total) / (now - before.now);
}

function fillTable(body, rows) {
    body.replaceChildren(...rows.map(({ cells, bad }) => {
        const row = document.createElement('tr');
        row.className = bad ? 'bad' : '';
        row.append(...cells.map((text) => {
            const cell = document.createElement('td');
            cell.textContent = text;
            return cell;
        }));
        return row;
    }));
}

const fpsHistory = [];

function drawHistory(fps) {
    fpsHistory.push(Number.isFinite(fps) ? fps : 0);
    if (fpsHistory.length > HISTORY_LENGTH)
        fpsHistory.shift();
    const top = Math.max(60, ...fpsHistory);
    const start = HISTORY_LENGTH - fpsHistory.length;
    const points = fpsHistory.map((value, i) => `${start + i},${(19 - 18 * value / top).toFixed(1)}`);
    element('history-line').setAttribute('points', points.join(' '));
}

function showScreen(screen) {
    element('size').textContent = screen.size;
    element('fps').textContent = asFps(screen.fps);
    element('median').textContent = asMs(screen.median);
    element('p99').textContent = asMs(screen.p99);
    element('dropped').textContent = asCount(screen.dropped);
    drawHistory(screen.fps);
}

function readScreen(scanout, i) {
    const width = scanout.shown_width || scanout.width, height = scanout.shown_height || scanout.height;
    return {
        on: scanout.on,
        size: scanout.on === false ? 'off' : `${width}×${height}`,
        fps: rate(`scanout ${i}`, scanout.frames, scanout.fps),
        median: scanout.frame_ms_median,
        p99: scanout.frame_ms_p99,
        dropped: scanout.dropped,
    };
}

function readContext(context) {
    const memory = asBytes(context.memory_bytes);
    const commands = rate(`commands ${context.id}`, context.commands, context.commands_per_s);
    const fps = rate(`frames ${context.id}`, context.frames, context.fps);
    const state = context.failed ? ' (stopped)' : context.hung ? ' (hangs)' : '';
    return {
        cells: [`${context.name || `context ${context.id}`}${state}`, asFps(fps), asMs(context.frame_ms_median),
                asMs(context.frame_ms_p99), asCount(commands), memory],
        bad: state !== '',
    };
}

function showStatus({ scanout, device }) {
    const screens = (device?.scanouts ?? []).map(readScreen);
    const contexts = (device?.contexts ?? []).map(readContext);
    if (screens[scanout])
        showScreen(screens[scanout]);
    if (connected) {
        element('notice').hidden = screens[scanout]?.on !== false;
        if (screens[scanout]?.on === false)
            notice('The screen is off', 'The guest shows nothing at the moment.');
    }
    fillTable(element('scanouts'), screens.map((screen, i) => ({
        cells: [String(i), screen.size, asFps(screen.fps), asMs(screen.median), asMs(screen.p99),
                asCount(screen.dropped)],
    })));
    fillTable(element('contexts'), contexts);
    element('no-contexts').hidden = contexts.length > 0;
}

// Nobody sees the figures of a hidden bar; whether the screen is on matters all the same.
async function updateStatus() {
    if (connected && !document.hidden) {
        const answer = await fetch('/status.json').catch(() => null);
        if (answer?.ok)
            showStatus(await answer.json());
    }
    setTimeout(updateStatus, STATUS_INTERVAL_MS);
}

// ---- bar ----

function showBar(shown) {
    element('bar').hidden = !shown;
    element('show').hidden = shown;
    element('details').hidden = !shown || element('more').ariaExpanded !== 'true';
    keep('bar', shown);
}

function showDetails(shown) {
    element('more').ariaExpanded = String(shown);
    element('details').hidden = !shown;
    keep('details', shown);
}

function resizeGuest(on) {
    element('resize').ariaPressed = String(on);
    if (rfb)
        rfb.resizeSession = on;
    keep('resize', on);
}

async function toggleFullscreen() {
    if (document.fullscreenElement) {
        await document.exitFullscreen();
        return;
    }
    await document.documentElement.requestFullscreen();
    await navigator.keyboard?.lock?.(); // Alt+Tab, Escape and the like go to the guest, then
}

for (const button of document.querySelectorAll('button')) {
    // The guest keeps the keyboard when somebody clicks here.
    button.addEventListener('mousedown', (event) => event.preventDefault());
    button.addEventListener('click', () => rfb?.focus());
}
element('more').addEventListener('click', () => showDetails(element('more').ariaExpanded !== 'true'));
element('resize').addEventListener('click', () => resizeGuest(element('resize').ariaPressed !== 'true'));
element('ctrl-alt-del').addEventListener('click', () => rfb?.sendCtrlAltDel());
element('fullscreen').addEventListener('click', () => toggleFullscreen().catch(() => {}));
element('hide').addEventListener('click', () => showBar(false));
element('show').addEventListener('click', () => showBar(true));
document.addEventListener('fullscreenchange', () => {
    element('fullscreen').textContent = document.fullscreenElement ? 'Leave fullscreen' : 'Fullscreen';
});

showDetails(setting('details', false));
resizeGuest(setting('resize', false));
showBar(setting('bar', true));
light('');
fixCursor(RFB);
connect();
updateStatus();
