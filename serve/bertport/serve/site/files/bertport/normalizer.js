/**
 * BERT's normalizer as the Rust package has it, with the place of each character.
 *
 * That of @huggingface/tokenizers 0.2 reads UTF-16 units, so that it does not see the CJK characters above U+FFFF, and
 * lower-cases a text as a whole, which writes a Greek sigma at a word's end as another letter. Both change ids.
 */
// The gap from U+2B820 to U+2B91F is the Rust package's own.
const IDEOGRAPH = /^[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]$/u;
const DROPPED = /^(?![\t\n\r])[\0\ufffd\p{Cc}\p{Cf}\p{Co}]$/u;
const SPACE = /^\p{White_Space}$/u;
const MARKS = /\p{Mn}/gu;
const ASCII = /^[\x20-\x7e]*$/;
/** Return the function that normalizes a text. */
export function bertNormalizer(settings) {
    const lowercase = settings.lowercase ?? true;
    const strip = settings.strip_accents ?? lowercase;
    function written(character) {
        let text = character;
        if (settings.clean_text ?? true)
            text = DROPPED.test(text) ? "" : SPACE.test(text) ? " " : text;
        if ((settings.handle_chinese_chars ?? true) && IDEOGRAPH.test(text))
            text = ` ${text} `;
        if (strip)
            text = text.normalize("NFD").replace(MARKS, "");
        return lowercase ? text.toLowerCase() : text;
    }
    return (text) => {
        if (ASCII.test(text))
            return plain(lowercase ? text.toLowerCase() : text);
        const parts = [];
        const starts = [];
        const ends = [];
        let at = 0;
        for (const character of text) {
            const part = written(character);
            for (let unit = 0; unit < part.length; unit++) {
                starts.push(at);
                ends.push(at + character.length);
            }
            parts.push(part);
            at += character.length;
        }
        return { text: parts.join(""), starts, ends };
    };
}
function plain(text) {
    const starts = Array.from(text, (_, place) => place);
    return { text, starts, ends: starts.map((place) => place + 1) };
}
