// What one tenant has of each plugin. There is no list of all tenants: whoever may look names the one they mean.

import { ask, query } from "./api.js";
import { faultOf } from "./fault.js";
import { badge } from "./format.js";
import { h, replace, table } from "./dom.js";

export function tenantsView({ me, signal, argument: tenant }) {
  const found = h("div", { "aria-live": "polite" });
  const may = me.roles.some((role) => ["Admin", "TenantOwner"].includes(role));
  const choose = h("form", {
    class: "filters", role: "search", "aria-label": "Choose a tenant",
    onsubmit: (event) => {
      event.preventDefault();
      location.hash = `#/tenants/${encodeURIComponent(new FormData(event.target).get("tenant").trim())}`;
    },
  },
  h("div", {},
    h("label", { for: "tenant" }, "Tenant"),
    h("input", { id: "tenant", name: "tenant", value: tenant ?? "", required: true, maxlength: 128, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", spellcheck: "false", autocapitalize: "none" })),
  h("button", { type: "submit" }, "Show"));

  async function start() {
    if (!may || !tenant) return;
    try {
      const answer = await ask(`tenants/${encodeURIComponent(tenant)}/plugins${query({ limit: 100 })}`, { signal });
      replace(found, h("h2", {}, tenant), answer.items.length
        ? table(`Plugins of ${tenant}`, ["Plugin", "Calls", "Pinned to", "Served by", "Warnings"], answer.items.map((one) => [
          one.displayName || one.pluginId,
          one.enabled ? badge("Ready", "enabled") : badge("Paused", "disabled"),
          one.pinnedVersion ?? "–",
          one.serving.map((place) => `${place.environment} ${place.version ?? "(nothing)"}${place.movingTo ? ` → ${place.movingTo}` : ""}`).join(", ") || "–",
          one.warnings.join("; ") || "–",
        ]))
        : h("p", { class: "quiet" }, "No plugin is registered."));
    } catch (fault) {
      if (signal.aborted) return;
      replace(found, fault.status === 404
        ? h("p", { class: "notice wait" }, "This api does not tell what a tenant has of plugins.")
        : faultOf(fault));
    }
  }

  return {
    title: "Tenants",
    content: [
      h("h1", {}, "Tenants"),
      may ? choose : h("p", { class: "notice wait" }, "Only an Admin, or a tenant's own TenantOwner, may look at a tenant."),
      may && me.tenants.length
        ? h("ul", { class: "inline", "aria-label": "Your tenants" }, me.tenants.map((one) => h("li", {}, h("a", { href: `#/tenants/${one}` }, one))))
        : null,
      found,
    ].filter(Boolean),
    start,
  };
}
