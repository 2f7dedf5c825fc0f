/** bertport: answers from a bundle, wherever ONNX Runtime runs; no module of Node.js is used. */
import { Model } from "./model.js";
export { BertportError, BundleError, InputTextError, MissingHeadError, OutputError, ProviderError, UsageError, } from "./errors.js";
export { Model, preferred } from "./model.js";
/** Return a model, of which every file was compared with its hash before it was opened. */
export function load(options) {
    return Model.load(options);
}
