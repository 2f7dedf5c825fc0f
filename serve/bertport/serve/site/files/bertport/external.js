/**
 * Files that a graph takes weights from, read out of its ONNX protobuf before ONNX Runtime sees it.
 *
 * Fields: ModelProto.graph 7, .training_info 20, .functions 25; TrainingInfoProto.initialization 1, .algorithm 2;
 * GraphProto.node 1, .initializer 5, .sparse_initializer 15;
 * NodeProto.attribute 5; AttributeProto.t 5, .g 6, .tensors 10, .graphs 11, .sparse_tensor 22, .sparse_tensors 23;
 * SparseTensorProto.values 1, .indices 2; TensorProto.external_data 13; StringStringEntryProto.key 1, .value 2;
 * FunctionProto.node 7, .attribute_proto 11.
 */
import { BundleError, excerpt } from "./errors.js";
/** The messages inside a message, by field number. */
const INSIDE = {
    model: { 7: "graph", 20: "training", 25: "function" },
    training: { 1: "graph", 2: "graph" },
    graph: { 1: "node", 5: "tensor", 15: "sparse" },
    function: { 7: "node", 11: "attribute" },
    node: { 5: "attribute" },
    attribute: { 5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse" },
    sparse: { 1: "tensor", 2: "tensor" },
    tensor: { 13: "entry" },
    entry: {},
};
const DEEPEST = 64;
/** Characters of no file of a bundle; `*` begins the names under which ONNX Runtime takes an offset for an address. */
const SPECIAL = /[\p{Cc}\\:*?"<>|]/u;
/** Keys of fields have 32 bits; protobuf's own parser drops what is above them, and would see another field. */
const KEYS = 2 ** 32;
/** Return the locations that a graph names, each once. */
export function externalFiles(model) {
    const locations = new Set();
    walk(model, "model", locations, 0);
    return [...locations];
}
function walk(message, kind, locations, depth) {
    if (depth > DEEPEST)
        throw new BundleError(`a graph is nested more than ${DEEPEST} levels deep: export again`);
    const entry = {};
    for (const [field, content] of fields(message)) {
        const inner = Object.hasOwn(INSIDE[kind], field) ? INSIDE[kind][field] : undefined;
        if (inner)
            walk(content, inner, locations, depth + 1);
        else if (kind === "entry")
            entry[field] = new TextDecoder("utf-8", { ignoreBOM: true }).decode(content);
    }
    if (kind !== "entry" || entry[1] !== "location")
        return;
    const location = entry[2] ?? "";
    if (SPECIAL.test(location)) {
        throw new BundleError(`a graph takes weights from ${excerpt(location)}, which is not a plain file path: do not use a bundle from this source`);
    }
    locations.add(location);
}
/** Yield the fields of a message that have a length, with their content. */
function* fields(message) {
    let at = 0;
    function varint() {
        let value = 0;
        for (let scale = 1; scale < 2 ** 63; scale *= 128) {
            const byte = message[at++];
            if (byte === undefined)
                break;
            value += (byte & 127) * scale;
            if (byte < 128)
                return value;
        }
        throw new BundleError("a graph is not an ONNX file: the bundle is damaged; export again");
    }
    while (at < message.length) {
        const key = varint();
        if (key >= KEYS)
            throw new BundleError("a graph is not an ONNX file: the bundle is damaged; export again");
        const wire = key % 8;
        let length = wire === 1 ? 8 : wire === 5 ? 4 : 0;
        if (wire === 0)
            varintSkip();
        else if (wire === 2)
            length = varint();
        else if (wire !== 1 && wire !== 5)
            throw new BundleError("a graph is not an ONNX file: the bundle is damaged; export again");
        if (at + length > message.length)
            throw new BundleError("a graph ends early: the bundle is damaged; export again");
        if (wire === 2)
            yield [Math.floor(key / 8), message.subarray(at, at + length)];
        at += length;
    }
    function varintSkip() {
        for (let count = 0; count < 10; count++)
            if ((message[at++] ?? 0) < 128)
                return;
    }
}
