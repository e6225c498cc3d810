// noVNC 1.3 asks for pixels with red first, and takes the cursor's to have blue first. Found by
// trying, so that other versions stay as they are.

function swapsColours(RFB) {
    let first = null;
    RFB.prototype._handleCursor.call({
        _FBU: { x: 0, y: 0, width: 1, height: 1 },
        _sock: {
            rQwait: () => false,
            rQshiftBytes: (size) => new Uint8Array(size === 4 ? [1, 2, 3, 0] : [0x80]),
        },
        _updateCursor: (rgba) => { first = rgba[0]; },
    });
    return first === 3;
}

function swap(rgba) {
    for (let i = 0; i < rgba.length; i += 4)
        [rgba[i], rgba[i + 2]] = [rgba[i + 2], rgba[i]];
}

export function fixCursor(RFB) {
    try {
        if (!swapsColours(RFB))
            return;
    } catch {
        return; // it works in another way there
    }
    const handle = RFB.prototype._handleCursor;
    RFB.prototype._handleCursor = function () {
        this._updateCursor = function (rgba, ...rest) {
            swap(rgba);
            delete this._updateCursor;
            this._updateCursor(rgba, ...rest);
        };
        const done = handle.call(this);
        delete this._updateCursor;
        return done;
    };
}
