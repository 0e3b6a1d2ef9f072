// The forms for who is not signed in. What is secret goes in the bodies of requests: an invitation's token stands behind the # of its
// address, which browsers keep to themselves.
(() => {
  const page = document.body.dataset;
  const words = JSON.parse(page.words);
  const form = document.querySelector("form");
  const told = document.getElementById("told");
  const tell = (text) => { told.textContent = text; told.hidden = !text; if (text) told.focus(); };
  const secret = location.hash.slice(1);
  if (secret) {
    history.replaceState(null, "", location.pathname + location.search);
    if (form?.token) form.token.value = secret;
  }
  const language = document.getElementById("language");
  language.addEventListener("click", () => { if (form?.token?.value) language.hash = form.token.value; });
  const signedIn = () => new BroadcastChannel("danlu").postMessage("signed in");
  if (page.kind === "done") signedIn();

  const send = async (path, body) => {
    const answer = await fetch(`/api/v1/session${path}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    const content = await answer.json();
    if (answer.ok) return content;
    tell(words[answer.status] ?? words.other.replace("{code}", content.code ?? answer.status));
    return null;
  };
  const guarded = (button, work) => async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    tell("");
    try { await work(); } catch { tell(words.network); } finally { button.disabled = false; }
  };
  form?.addEventListener("submit", guarded(form.querySelector("[type=submit]"), async () => {
    if (!await send(form.dataset.path, Object.fromEntries(new FormData(form)))) return;
    signedIn();
    location.replace(page.next);
  }));
  const provider = document.getElementById("provider");
  provider?.addEventListener("click", guarded(provider, async () => {
    const begun = await send("/oidc", { next: page.next, invitation: form.token?.value || null });
    if (begun) location.assign(begun.url);
  }));
  form?.querySelector("input:not([value])")?.focus();
})();
