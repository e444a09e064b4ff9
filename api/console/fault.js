// Shows what the api refused, in the api's own words.

import { Refused } from "./api.js";
import { h } from "./dom.js";

/** What went wrong, for the person who asked: the api's words, its details, and the trace to look it up by. */
export function faultOf(fault) {
  if (!(fault instanceof Refused)) throw fault;
  return h("div", { class: "notice bad", role: "alert" },
    h("p", {}, fault.message),
    fault.details.length ? h("ul", {}, fault.details.map((one) => h("li", {}, `${one.field}: ${one.message}`))) : null,
    fault.traceId ? h("p", { class: "quiet" }, "Trace ", h("code", {}, fault.traceId)) : null);
}
