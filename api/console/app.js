// The frame of the page: who is signed in, which view the address names, and the focus when the view changes.

import { ask, signIn, signOut, signedIn, useToken, whenSignedOut } from "./api.js";
import { announce, h } from "./dom.js";
import { faultOf } from "./fault.js";
import { nodesView } from "./nodes.js";
import { rolloutView } from "./rollout.js";
import { rolloutsView } from "./rollouts.js";
import { tenantsView } from "./tenants.js";

const VIEWS = [
  { pattern: /^#\/rollouts(\?.*)?$/, make: rolloutsView, link: "#/rollouts", name: "Rollouts" },
  { pattern: /^#\/rollouts\/([A-Za-z0-9_]{1,80})$/, make: rolloutView, link: "#/rollouts" },
  { pattern: /^#\/nodes$/, make: nodesView, link: "#/nodes", name: "Nodes" },
  { pattern: /^#\/tenants(?:\/([A-Za-z0-9._-]{1,128}))?$/, make: tenantsView, link: "#/tenants", name: "Tenants" },
];

const top = document.getElementById("top");
const main = document.getElementById("main");
let me = null;
let leaving = new AbortController();

function header() {
  const link = VIEWS.find((view) => view.pattern.test(location.hash))?.link;
  top.replaceChildren(...[
    h("span", { class: "brand" }, "HotSwap"),
    me && h("nav", { "aria-label": "Console" }, h("ul", {}, VIEWS.filter((view) => view.name).map((view) =>
      h("li", {}, h("a", { href: view.link, "aria-current": view.link === link ? "page" : null }, view.name))))),
    me && h("div", { class: "who" },
      h("span", {}, me.user, h("span", { class: "quiet" }, ` ${me.roles.join(", ") || "no role"}`)),
      h("button", { type: "button", class: "plain", onclick: () => signOut().catch(() => {}) }, "Sign out")),
  ].filter(Boolean));
}

/** Show the view that the address names, and take the reader to its heading. */
async function show() {
  leaving.abort();
  leaving = new AbortController();
  const signal = leaving.signal;
  if (!signedIn()) return door("");
  try {
    me ??= await ask("authentication/me", { signal });
  } catch (fault) {
    if (signal.aborted || !signedIn()) return undefined;
    header();
    return place("Not available", [h("h1", {}, "Not available"), faultOf(fault),
      h("button", { type: "button", onclick: show }, "Try again")]);
  }
  if (signal.aborted) return undefined; // another view was wanted meanwhile
  const view = VIEWS.find((one) => one.pattern.test(location.hash));
  if (!view) {
    location.replace("#/rollouts");
    return undefined;
  }
  header();
  const argument = view.pattern.exec(location.hash)[1];
  const { title, content, start } = view.make({ me, signal, argument });
  place(title, content);
  return start?.();
}

function place(title, content) {
  document.title = `${title} · HotSwap`;
  main.replaceChildren(...content);
  const heading = main.querySelector("h1");
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

/** The door: name and password, or a token. */
function door(why) {
  me = null;
  header();
  const told = h("div", { id: "told" });
  if (why) told.append(h("p", { class: "notice wait", role: "alert" }, why));
  const enter = (attempt) => async (event) => {
    event.preventDefault();
    const button = event.target.querySelector("button");
    told.replaceChildren();
    button.disabled = true;
    try {
      await attempt(new FormData(event.target));
      event.target.reset();
      announce("You are signed in.");
      await show();
    } catch (fault) {
      told.replaceChildren(faultOf(fault));
      event.target.querySelector("input").focus();
    } finally {
      button.disabled = false;
    }
  };
  place("Sign in", [
    h("div", { class: "door" },
      h("h1", {}, "Sign in"),
      told,
      h("form", { class: "card", onsubmit: enter((form) => signIn(form.get("user").trim(), form.get("password"))) },
        h("label", { for: "user" }, "User"),
        h("input", { id: "user", name: "user", required: true, maxlength: 200, autocomplete: "username", autocapitalize: "none", spellcheck: "false" }),
        h("label", { for: "password" }, "Password"),
        h("input", { id: "password", name: "password", type: "password", required: true, maxlength: 2000, autocomplete: "current-password" }),
        h("button", { type: "submit", class: "primary" }, "Sign in")),
      h("details", { class: "card" },
        h("summary", {}, "I have a token"),
        h("form", { onsubmit: enter((form) => useToken(form.get("token").trim())) },
          h("label", { for: "token" }, "Token"),
          h("input", { id: "token", name: "token", type: "password", required: true, autocomplete: "off", "aria-describedby": "token-help" }),
          h("p", { id: "token-help", class: "quiet" }, "Of your identity provider, a service token, or a development token. It stays in this tab."),
          h("button", { type: "submit" }, "Use this token")))),
  ]);
}

whenSignedOut((why) => {
  leaving.abort();
  document.querySelector("dialog[open]")?.close();
  door(why);
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("hashchange", show);
await show();
