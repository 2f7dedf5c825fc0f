/** Text to token ids and back, by the bundle's own tokenizer.json. */
import { Tokenizer } from "../vendor/tokenizers.js";
import { BundleError, excerpt, InputTextError, reasonOf, UsageError } from "./errors.js";
import { bertNormalizer } from "./normalizer.js";
/** UTF-16 units of a text, at most: what is longer is no input of an encoder, and tokenizing takes its time. */
export const LONGEST_TEXT = 200_000;
const PROBES = ["a", "1", "."];
const MOST_WINDOWS = 16_384;
const SETTINGS_FILES = ["special_tokens_map.json", "tokenizer_config.json"];
/** Replacements that transformers makes in decoded text, in this order, when `clean_up_tokenization_spaces` is set. */
const CLEANED = [
    [" .", "."],
    [" ?", "?"],
    [" !", "!"],
    [" ,", ","],
    [" ' ", "'"],
    [" n't", "n't"],
    [" 'm", "'m"],
    [" 's", "'s"],
    [" 've", "'ve"],
    [" 're", "'re"],
];
/** The tokenizer of a bundle. */
export class Tokens {
    maxLength;
    vocabSize;
    segments;
    /** The mask token; null where there is none. */
    maskToken;
    /** Its id; null where there is none. */
    maskId;
    /** Id of the padding token; null where there is none. */
    padId;
    /** Id of the token of words that the vocabulary does not hold; null where there is none. */
    unknownId;
    /** Whether transformers would pad on the left. */
    padsLeft;
    /** Prefix of tokens that continue a word; null where the vocabulary has none. */
    continuation;
    /** Whether two texts of one token each fit into the model. */
    takesPairs;
    tokenizer;
    normalizer;
    frames;
    cutsLeft;
    cleansUp;
    added;
    special;
    decoderKind;
    constructor(content, settings, 
    /** Longest input in tokens. */
    maxLength, vocabSize, segments) {
        this.maxLength = maxLength;
        this.vocabSize = vocabSize;
        this.segments = segments;
        // What the settings say of spaces and casing beside tokenizer.json is of other tokenizers than a bundle has.
        const { remove_space, do_lowercase_and_remove_accent, ...kept } = settings;
        this.tokenizer = new Tokenizer(content, kept);
        const stated = content.normalizer;
        this.normalizer = stated?.type === "BertNormalizer" ? bertNormalizer(stated) : null;
        mend(this.tokenizer.normalizer);
        const model = content.model;
        this.continuation = typeof model.continuing_subword_prefix === "string" ? model.continuing_subword_prefix : null;
        this.maskToken = tokenOf(settings, "mask_token", "[MASK]");
        this.maskId = this.idOf(this.maskToken);
        this.padId = this.idOf(tokenOf(settings, "pad_token", "[PAD]"));
        const unknown = tokenOf(settings, "unk_token", typeof model.unk_token === "string" ? model.unk_token : "[UNK]");
        this.unknownId = this.idOf(unknown);
        const sides = { truncation: sideOf(content.truncation), padding: sideOf(content.padding) };
        this.cutsLeft = (settings.truncation_side ?? sides.truncation) === "left";
        this.padsLeft = (settings.padding_side ?? sides.padding) === "left";
        this.cleansUp = settings.clean_up_tokenization_spaces === true;
        const added = [...this.tokenizer.get_added_tokens_decoder()];
        this.added = added.map(([, token]) => token.content);
        this.special = new Set(added.filter(([, token]) => token.special).map(([id]) => id));
        this.decoderKind = content.decoder?.type;
        this.frames = [this.frameOf(1), this.frameOf(2)];
        this.takesPairs = addedBy(this.frames[1]) + 2 <= maxLength;
        if (addedBy(this.frames[0]) >= maxLength) {
            throw new BundleError(`the model takes ${maxLength} tokens and tokenizer.json adds ${addedBy(this.frames[0])} to every text: ` +
                "the bundle is damaged; export again");
        }
    }
    /** Return the tokenizer of a bundle, from its files. */
    static async read(bundle) {
        const { manifest } = bundle;
        const settings = {};
        for (const name of SETTINGS_FILES) {
            if (Object.hasOwn(manifest.files, name))
                Object.assign(settings, await bundle.json(name));
        }
        const content = await bundle.json("tokenizer.json");
        try {
            return new Tokens(content, settings, manifest.maxLength, manifest.vocabSize, manifest.segments);
        }
        catch (error) {
            if (error instanceof BundleError)
                throw error;
            throw new BundleError(`tokenizer.json cannot be read (${reasonOf(error, 200)}): export again`);
        }
    }
    /**
     * Return a text as ids with special tokens.
     *
     * @param text - a text or a pair.
     * @param options - `truncation` cuts what is longer than the model takes, of a pair the longer text first; `masks`
     *   refuses a text of which that cuts off a mask; `places` tells which characters each token stands for.
     */
    encode(text, options = {}) {
        const parts = textsOf(text);
        const tokens = parts.map((part) => this.pieces(part, text, options.places ?? false));
        const frame = this.frame(parts.length);
        const count = tokens.reduce((sum, part) => sum + part.ids.length, addedBy(frame));
        if (count > this.maxLength && !options.truncation) {
            throw new InputTextError(`the input has ${count} tokens and the model takes ${this.maxLength}: shorten it, or pass truncation: true: ` +
                excerpt(text));
        }
        const room = this.maxLength - addedBy(frame);
        if (room < 0) {
            throw new InputTextError(`the tokenizer adds ${addedBy(frame)} tokens to a pair and the model takes ${this.maxLength}: give one text: ` +
                excerpt(text));
        }
        const kept = keptLengths(tokens.map((part) => part.ids.length), room);
        const shown = tokens.map((part, index) => this.shortened(part, kept[index] ?? 0));
        if (options.masks && shown.some((part, index) => this.lostMask(part, tokens[index]))) {
            throw new InputTextError(`truncation to ${this.maxLength} tokens cut off a ${this.maskToken}: put it nearer the beginning, or shorten ` +
                `the text: ${excerpt(text)}`);
        }
        return this.framed(shown);
    }
    /** Return the windows of a text or a pair, which overlap, so that none of it is lost; one where it is short. */
    windows(text, windows) {
        const parts = textsOf(text);
        const tokens = parts.map((part) => this.pieces(part, text, true));
        const whole = tokens[windows.cut];
        const count = whole.ids.length;
        const beside = tokens.reduce((sum, part) => sum + part.ids.length, addedBy(this.frame(parts.length))) - count;
        const room = windows.length - beside;
        if (count <= room)
            return [this.framed(tokens)];
        if (room <= windows.stride) {
            throw new InputTextError(`a window of ${windows.length} tokens has ${beside} beside the text that is cut and ${windows.stride} in ` +
                `common with the next, which leaves none to go on with: shorten the text beside it, or ask for longer windows or a smaller stride: ${excerpt(text)}`);
        }
        if (Math.ceil((count - windows.stride) / (room - windows.stride)) > MOST_WINDOWS) {
            throw new InputTextError(`the input has more than ${MOST_WINDOWS} windows: shorten it: ${excerpt(text)}`);
        }
        const made = [];
        for (let start = 0; start < count - windows.stride; start += room - windows.stride) {
            const end = Math.min(start + room, count);
            const span = this.cutsLeft ? [count - end, count - start] : [start, end];
            made.push(this.framed(tokens.map((part, index) => (index === windows.cut ? sliced(part, ...span) : part))));
        }
        return made;
    }
    /** Return ids as text, as transformers' `tokenizer.decode` does. */
    decode(ids, options) {
        if (!ids.length)
            return "";
        const text = this.tokenizer.decode([...ids], {
            skip_special_tokens: options.skipSpecial,
            clean_up_tokenization_spaces: false,
        });
        return this.cleansUp ? CLEANED.reduce((made, [from, to]) => made.replaceAll(from, to), text) : text;
    }
    /**
     * Return what `decode` gives for ids with another between them.
     *
     * Where the decoder writes each token by itself, what is before and behind is decoded once.
     */
    filling(before, after, options) {
        const head = this.decode(before, options);
        const kind = this.decoderKind;
        if ((kind !== "WordPiece" && kind !== "Metaspace") || head === "" || this.cleansUp) {
            return (id) => this.decode([...before, id, ...after], options);
        }
        // Behind a first token, every other is written as it is in the middle of a text.
        const [first] = before;
        const start = this.decode([first], { skipSpecial: false }).length;
        const behind = (ids) => {
            const kept = options.skipSpecial ? ids.filter((id) => !this.special.has(id)) : ids;
            return this.decode([first, ...kept], { skipSpecial: false }).slice(start);
        };
        const tail = behind(after);
        return (id) => head + behind([id]) + tail;
    }
    /** Return vocabulary entries as text. */
    join(pieces) {
        const { decoder } = this.tokenizer;
        return decoder ? decoder([...pieces]) : pieces.join(" ");
    }
    /** Return the id of an exact vocabulary entry; null where there is none, or none that the model knows. */
    idOf(token) {
        const index = token === null ? undefined : this.tokenizer.token_to_id(token);
        return index !== undefined && index < this.vocabSize ? index : null;
    }
    /** Return the vocabulary entry of an id; undefined where there is none. */
    tokenOf(id) {
        return this.tokenizer.id_to_token(id);
    }
    /** Return the id of the first piece of a word; null where it has none. */
    firstPiece(word) {
        const [first] = this.pieces(word, word, false).ids;
        return first ?? null;
    }
    /** Refuse tasks that need the place of each token, for a tokenizer whose places this package cannot tell. */
    needPlaces(task) {
        if (this.normalizer && this.continuation !== null)
            return;
        throw new UsageError(`${task} needs the place of each token, which this package tells for WordPiece tokenizers of BERT alone: use ` +
            "bertport in Python for this bundle");
    }
    pieces(text, whole, places) {
        this.refuse(text, whole);
        const ids = text === "" ? [] : this.tokenizer.encode(text, { add_special_tokens: false }).ids;
        const known = ids.filter((id) => id !== undefined && id < this.vocabSize);
        if (known.length < ids.length) {
            const beyond = ids.find((id) => id === undefined || id >= this.vocabSize) ?? "of a word that it does not know";
            throw new InputTextError(`the tokenizer gives the input the token ${beyond} and the model knows ${this.vocabSize}: one of them belongs ` +
                `to another checkpoint; export again: ${excerpt(whole)}`);
        }
        return places ? this.placed(text, known, whole) : { ids: known, starts: [], ends: [], words: [] };
    }
    refuse(text, whole) {
        if (typeof text !== "string")
            throw new InputTextError(`an input is a text, not ${excerpt(text)}`);
        if (text.length > LONGEST_TEXT) {
            throw new InputTextError(`the input has ${text.length} characters, and ${LONGEST_TEXT} are the most that is read: shorten it: ${excerpt(whole)}`);
        }
        if (/\p{Cs}/u.test(text)) {
            throw new InputTextError(`the input is not Unicode text (a lone surrogate): repair it: ${excerpt(whole)}`);
        }
    }
    /**
     * Return tokens with their places: those of the tokenizer's own words, one by one.
     *
     * Words that put together give other ids than the whole text are refused: their places would be wrong.
     */
    placed(text, expected, whole) {
        const ids = [];
        const starts = [];
        const ends = [];
        const words = [];
        let word = 0;
        for (const section of sections(text, this.added)) {
            if (section.added) {
                ids.push(this.idOf(section.text) ?? -1);
                starts.push(section.at);
                ends.push(section.at + section.text.length);
                words.push(word++);
                continue;
            }
            for (const piece of this.wordPieces(section.text)) {
                ids.push(piece.id);
                starts.push(section.at + piece.start);
                ends.push(section.at + piece.end);
                words.push(word + piece.word);
            }
            word = (words.at(-1) ?? -1) + 1;
        }
        if (ids.length !== expected.length || ids.some((id, index) => id !== expected[index])) {
            throw new InputTextError(`the places of the tokens cannot be told in this text: leave out what looks like a special token: ${excerpt(whole)}`);
        }
        return { ids, starts, ends, words };
    }
    *wordPieces(text) {
        const normalized = this.normalizer(text);
        const { pre_tokenizer: split, model } = this.tokenizer;
        let at = 0;
        for (const [word, characters] of (split ? split(normalized.text) : [normalized.text]).entries()) {
            at = normalized.text.indexOf(characters, at);
            const tokens = model([characters]);
            const pieces = tokens.map((token, index) => {
                const continues = index > 0 && this.continuation !== null && token.startsWith(this.continuation);
                return {
                    id: this.tokenizer.token_to_id(token) ?? -1,
                    length: token.length - (continues ? (this.continuation ?? "").length : 0),
                };
            });
            // An unknown word is one token, whatever its length.
            if (pieces[0]?.id === this.unknownId && pieces.length === 1)
                pieces[0].length = characters.length;
            for (const piece of pieces) {
                const start = normalized.starts[at] ?? 0;
                at += piece.length;
                yield { id: piece.id, start, end: normalized.ends[at - 1] ?? start, word };
            }
        }
    }
    frame(parts) {
        return this.frames[parts === 1 ? 0 : 1];
    }
    framed(parts) {
        const frame = this.frame(parts.length);
        const ids = [...(frame.special[0] ?? [])];
        const types = ids.map(() => frame.types[0] ?? 0);
        const spans = [];
        for (const [index, part] of parts.entries()) {
            spans.push([ids.length, ids.length + part.ids.length]);
            for (const id of part.ids) {
                ids.push(id);
                types.push(frame.types[2 * index + 1] ?? 0);
            }
            for (const id of frame.special[index + 1] ?? []) {
                ids.push(id);
                types.push(frame.types[2 * index + 2] ?? 0);
            }
        }
        const given = parts.length > 1 && this.segments === null;
        return { ids, types: given ? types : types.map(() => this.segments ?? 0), parts: spans, tokens: parts };
    }
    shortened(part, length) {
        const count = part.ids.length;
        if (count <= length)
            return part;
        return this.cutsLeft ? sliced(part, count - length, count) : sliced(part, 0, length);
    }
    lostMask(kept, whole) {
        const masks = (part) => part.ids.filter((id) => id === this.maskId).length;
        return this.maskId !== null && whole !== undefined && kept !== whole && masks(kept) < masks(whole);
    }
    /** Return the special tokens around one text or two, from what the tokenizer makes of a short one. */
    frameOf(parts) {
        for (const probe of PROBES) {
            const bare = this.tokenizer.encode(probe, { add_special_tokens: false }).ids;
            if (!bare.length)
                continue;
            const pair = parts === 2 ? { text_pair: probe } : {};
            const { ids, token_type_ids: types } = this.tokenizer.encode(probe, { ...pair, return_token_type_ids: true });
            return frameIn(ids, types ?? ids.map(() => 0), bare, parts);
        }
        throw new BundleError(`tokenizer.json gives no token for any of ${PROBES.join(", ")} (is its vocabulary empty?): export again`);
    }
}
/** Replace normalizers of the library that differ from those of the Rust package. */
function mend(normalizer) {
    if (normalizer?.config.type === "BertNormalizer") {
        const normalize = bertNormalizer(normalizer.config);
        normalizer.normalize = (text) => normalize(text).text;
    }
    else if (normalizer?.config.type === "Lowercase") {
        // Of a text as a whole, JavaScript writes a Greek sigma at a word's end as another letter.
        normalizer.normalize = (text) => Array.from(text, (character) => character.toLowerCase()).join("");
    }
    for (const inner of normalizer?.normalizers ?? [])
        mend(inner);
}
/** Return the special tokens in `ids` around the tokens of a probe that is there `parts` times. */
function frameIn(ids, types, bare, parts) {
    const special = [[]];
    const segments = [types[0] ?? 0];
    let at = 0;
    while (at < ids.length) {
        const here = at;
        if (special.length <= parts && bare.every((id, index) => ids[here + index] === id)) {
            at += bare.length;
            special.push([]);
            segments.push(types[here] ?? 0, types[at] ?? types[here] ?? 0);
        }
        else {
            special.at(-1)?.push(ids[here]);
            at++;
        }
    }
    if (special.length !== parts + 1) {
        throw new BundleError("the post-processor of tokenizer.json does not put texts between special tokens, each once and in order: export again");
    }
    return { special, types: segments };
}
/** Return how many tokens are kept of one text or of two, where there is room for so many: the longer is cut first. */
export function keptLengths(counts, room) {
    const [first = 0, second] = counts;
    if (counts.reduce((sum, count) => sum + count, 0) <= room)
        return [...counts];
    if (second === undefined)
        return [room];
    let [shorter, longer] = first <= second ? [first, second] : [second, first];
    longer = shorter > room ? shorter : Math.max(shorter, room - shorter);
    if (shorter + longer > room) {
        shorter = Math.floor(room / 2);
        longer = shorter + (room % 2);
    }
    return first > second ? [longer, shorter] : [shorter, longer];
}
/** Cut a text at the added tokens in it, the longest first where two begin at one place. */
function* sections(text, added) {
    const present = added.filter((token) => token !== "" && text.includes(token)).sort((a, b) => b.length - a.length);
    if (!present.length) {
        yield { text, at: 0, added: false };
        return;
    }
    const pattern = present.map((token) => token.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
    let at = 0;
    for (const match of text.matchAll(new RegExp(pattern, "g"))) {
        if (match.index > at)
            yield { text: text.slice(at, match.index), at, added: false };
        yield { text: match[0], at: match.index, added: true };
        at = match.index + match[0].length;
    }
    if (at < text.length)
        yield { text: text.slice(at), at, added: false };
}
function textsOf(text) {
    return typeof text === "string" ? [text] : text;
}
function addedBy(frame) {
    return frame.special.reduce((sum, run) => sum + run.length, 0);
}
function sliced(part, begin, end) {
    return {
        ids: part.ids.slice(begin, end),
        starts: part.starts.slice(begin, end),
        ends: part.ends.slice(begin, end),
        words: part.words.slice(begin, end),
    };
}
function tokenOf(settings, key, fallback) {
    const value = Object.hasOwn(settings, key) ? settings[key] : fallback;
    const content = typeof value === "object" && value !== null ? value.content : value;
    if (content === null || typeof content === "string")
        return content;
    throw new BundleError(`tokenizer_config.json: ${key} is ${excerpt(value)} and should be a token: export again`);
}
function sideOf(stated) {
    const side = typeof stated === "object" && stated !== null ? stated.direction : undefined;
    return typeof side === "string" ? side.toLowerCase() : "right";
}
