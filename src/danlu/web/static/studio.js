// What the studio's pages do by themselves: relative times, help bubbles, copying, the menu on small screens.
window.danlu = (() => {
  const lang = () => document.documentElement.lang || "en-US";
  const relative = (seconds) => {
    const format = new Intl.RelativeTimeFormat(lang(), { numeric: "auto" });
    const past = seconds - Date.now() / 1000;
    const size = Math.abs(past);
    if (size < 45) return lang().startsWith("zh") ? "\u521a\u521a" : "just now";
    if (size < 2700) return format.format(Math.round(past / 60), "minute");
    if (size < 79200) return format.format(Math.round(past / 3600), "hour");
    if (size < 30 * 86400) return format.format(Math.round(past / 86400), "day");
    return new Date(seconds * 1000).toLocaleDateString(lang());
  };
  const absolute = (seconds) => new Date(seconds * 1000).toLocaleString(lang());
  const tell = (element) => {
    const seconds = Number(element.dataset.at);
    const text = relative(seconds);
    if (element.textContent !== text) element.textContent = text;
    if (!element.title) element.title = absolute(seconds);
  };
  const tellAll = () => document.querySelectorAll("time[data-at]").forEach(tell);
  setInterval(tellAll, 5000);
  new MutationObserver(tellAll).observe(document.documentElement, { childList: true, subtree: true, attributeFilter: ["data-at"] });

  let bubble = null;
  const hide = () => {
    bubble?.remove();
    bubble = null;
    document.querySelector("[aria-describedby=dl-tip]")?.removeAttribute("aria-describedby");
  };
  const show = (element) => {
    hide();
    bubble = document.createElement("div");
    Object.assign(bubble, { className: "dl-tip", id: "dl-tip" });
    bubble.setAttribute("role", "tooltip");
    bubble.textContent = element.dataset.tip;
    document.body.append(bubble);
    if (!element.ariaLabel?.includes(element.dataset.tip)) element.setAttribute("aria-describedby", "dl-tip");
    const place = element.getBoundingClientRect(), size = bubble.getBoundingClientRect();
    bubble.style.left = Math.max(8, Math.min(place.left, innerWidth - size.width - 8)) + "px";
    bubble.style.top = (place.bottom + size.height + 12 > innerHeight ? place.top - size.height - 6 : place.bottom + 6) + "px";
  };
  const over = (event) => { const found = event.target.closest?.("[data-tip]"); if (found) show(found); else if (bubble) hide(); };
  document.addEventListener("mouseover", over);
  document.addEventListener("focusin", over);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { hide(); if (document.body.classList.contains("dl-nav-open")) menu(); }
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.target.closest?.("input, textarea, select, [role=dialog]")) return;
    const meant = document.querySelector(`main [aria-keyshortcuts="${CSS.escape(event.key)}"]`);
    if (meant) { event.preventDefault(); meant.click(); }
  });

  // The menu on small screens: who opens it is taken into it, who closes it back to its button.
  const menu = () => {
    const isOpen = document.body.classList.toggle("dl-nav-open"), opener = document.querySelector(".dl-topbar .dl-btn");
    opener?.setAttribute("aria-expanded", isOpen);
    (isOpen ? document.querySelector(".dl-nav a") : opener)?.focus();
  };

  // A session that ends in mid-page: the page stays as it is, and goes on once the same user has signed in again in another tab.
  let asked = null;
  const goOn = async () => {
    const answer = await fetch(`/studio-renew/${window.danluSession.page}`, { method: "POST" });
    if (!asked || !answer.ok) return;
    if (!(await answer.json()).is_same) return location.reload();
    asked.remove();
    asked = null;
    window.socket?.io.engine.close(); // it connects again by itself, now with the session that holds
  };
  const signInAgain = () => {
    const words = window.danluSession;
    if (asked || !words) return;
    asked = document.createElement("dialog");
    asked.className = "dl-again";
    asked.setAttribute("aria-label", words.title);
    const title = document.createElement("h2"), text = document.createElement("p"), link = document.createElement("a");
    title.textContent = words.title;
    text.textContent = words.text;
    Object.assign(link, { className: "dl-btn primary", href: "/sign-in?next=/signed-in", target: "_blank", textContent: words.open });
    asked.append(title, text, link);
    asked.addEventListener("cancel", (event) => event.preventDefault());
    (document.getElementById("app") ?? document.body).append(asked);
    asked.showModal();
  };
  const isOver = async () => (await (await fetch("/api/v1/session")).json()).is_signed_in === false;
  const look = () => { if (window.danluSession) isOver().then((over) => { if (over) signInAgain(); else if (asked) goOn(); }, () => null); };
  new BroadcastChannel("danlu").addEventListener("message", () => { if (asked) goOn(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  const listen = setInterval(() => {
    if (!window.socket) return;
    clearInterval(listen);
    window.socket.on("disconnect", look);
  }, 500);

  // A server that is gone: it is said in our words, and what was typed and not sent outlives the page that has to be loaded again.
  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("#popup > span").forEach((span, i) => { span.textContent = window.danluLost?.[i] ?? span.textContent; });
  });
  const KEPT = "danlu typed ", FIELDS = "textarea, input:not([type=password], [type=file], [type=search], [type=checkbox], [type=radio])";
  const typed = new Set();
  let wasAway = false;
  const place = (field) => `${KEPT}${location.pathname} ${field.getAttribute("aria-label") ?? field.name}`;
  document.addEventListener("input", (event) => { if (event.target.matches?.(FIELDS)) typed.add(event.target); }, true);
  addEventListener("pagehide", () => {
    if (wasAway) for (const field of typed) if (field.isConnected && field.value) sessionStorage.setItem(place(field), field.value);
  });
  const putBack = () => {
    for (const field of document.querySelectorAll(`main :is(${FIELDS})`)) {
      const text = sessionStorage.getItem(place(field));
      if (text === null) continue;
      sessionStorage.removeItem(place(field));
      if (field.value) continue; // the server has a draft of it
      field.value = text;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
  };
  const listenToServer = setInterval(() => {
    if (!window.socket?.connected) return;
    clearInterval(listenToServer);
    putBack();
    window.socket.on("disconnect", () => { wasAway = true; });
    window.socket.on("connect", () => setTimeout(() => { wasAway = !window.socket.connected; }, 5000));
  }, 200);
  const signOut = async () => {
    const session = await (await fetch("/api/v1/session")).json();
    if (session.csrf_token) await fetch("/api/v1/session", { method: "DELETE", headers: { "x-csrf-token": session.csrf_token } });
    location.assign("/sign-in");
  };

  // A line of a list that something is dragged over says where it would land; returns whether that is behind it.
  const overLine = (event) => {
    const line = event.currentTarget, place = line.getBoundingClientRect();
    const isBehind = event.clientY > place.top + place.height / 2, isOver = event.type === "dragover";
    if (event.type !== "dragleave") event.preventDefault();
    line.classList.toggle("over-top", isOver && !isBehind);
    line.classList.toggle("over-bottom", isOver && isBehind);
    return isBehind;
  };
  const focus = (...selectors) => {
    const found = selectors.map((selector) => document.querySelector(selector)).find((element) => element && !element.disabled);
    found?.focus();
  };

  return {
    over: overLine, focus, relative, absolute, signInAgain, signOut, menu,
    copy: async (text) => {
      if (navigator.clipboard && isSecureContext) return navigator.clipboard.writeText(text);
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    },
    save: (name, type, text) => {
      const link = document.createElement("a");
      link.href = text.startsWith("data:") ? text : URL.createObjectURL(new Blob([text], { type }));
      link.download = name;
      link.click();
    },
    token: (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim(),
  };
})();
