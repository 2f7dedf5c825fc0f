/** Says what keeps the page from working before any module is loaded: a classic script, which runs where those do not. */
{
    const status = document.getElementById("status");
    const say = (text) => {
        if (!status)
            return;
        status.textContent = text;
        status.className = "wrong";
        document.documentElement.dataset.broken = "";
    };
    if (location.protocol === "file:") {
        say("This page was opened as a file, from which browsers load no modules: serve its directory, for instance with " +
            "python -m http.server, and open http://localhost:8000.");
    }
    else if (typeof WebAssembly !== "object") {
        say("This browser runs no WebAssembly, or it is switched off, and the model needs it: switch it on, or use another " +
            "browser.");
    }
    else if (!window.isSecureContext) {
        say(`This page came over ${location.protocol.slice(0, -1)}, and browsers do not let a page compute hashes there: ` +
            "serve it over HTTPS, or open it on localhost.");
    }
    else {
        // Caught on the way down: the error of a script that is missing does not rise from it to the window.
        addEventListener("error", ({ target, error }) => {
            if (target instanceof HTMLScriptElement || error instanceof SyntaxError) {
                say("A script of this page cannot be loaded: load the page again, or copy the whole site there again.");
            }
        }, true);
    }
}
