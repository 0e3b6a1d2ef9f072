// A first look round: points at what is on the page, one thing at a time. Nothing is blocked meanwhile; a step is kept while the tab is open,
// so that whoever follows the first advice goes on from there when the home page comes back.
(() => {
  const KEY = "danlu-tour", GAP = 12, EDGE = 8;
  const words = window.danluTour, steps = words.steps;
  const isNarrow = () => matchMedia("(max-width: 640px)").matches;
  const hasMenu = () => matchMedia("(max-width: 999px)").matches;
  let number = Math.min(Number(sessionStorage.getItem(KEY)) || 0, steps.length - 1);

  const made = (tag, classes, text) => {
    const element = document.createElement(tag);
    element.className = classes;
    if (text) element.textContent = text;
    return element;
  };
  const ring = made("div", "dl-tour-ring");
  const panel = made("section", "dl-tour");
  const count = made("p", "dl-small dl-muted"), title = made("h2", ""), text = made("p", "dl-text"), row = made("div", "dl-row between");
  const skip = made("button", "dl-btn small quiet", words.skip), back = made("button", "dl-btn small", words.back), next = made("button", "dl-btn small primary");
  const buttons = made("div", "dl-row");
  Object.assign(title, { id: "dl-tour-title" });
  Object.assign(text, { id: "dl-tour-text" });
  for (const [name, value] of [["role", "dialog"], ["aria-labelledby", title.id], ["aria-describedby", text.id], ["tabindex", "-1"]]) panel.setAttribute(name, value);
  for (const button of [skip, back, next]) button.type = "button";
  buttons.append(back, next);
  row.append(skip, buttons);
  panel.append(count, title, text, row);

  const target = () => steps[number].at.map((place) => document.querySelector(place)).find((found) => found?.getClientRects().length);
  const place = () => {
    const found = target();
    ring.hidden = !found || (found.closest(".dl-nav") && hasMenu() && !document.body.classList.contains("dl-nav-open"));
    panel.classList.toggle("low", isNarrow());
    if (!found) return;
    const box = found.getBoundingClientRect(), size = panel.getBoundingClientRect();
    Object.assign(ring.style, { left: `${box.left - 4}px`, top: `${box.top - 4}px`, width: `${box.width + 8}px`, height: `${box.height + 8}px` });
    if (isNarrow()) return Object.assign(panel.style, { left: "", top: "" });
    const isBeside = box.right + GAP + size.width + EDGE <= innerWidth;
    const isBelow = box.bottom + GAP + size.height + EDGE <= innerHeight;
    const left = isBeside ? box.right + GAP : box.left + size.width + EDGE <= innerWidth ? box.left : box.right - size.width;
    const top = isBeside ? box.top - 4 : isBelow ? box.bottom + GAP : box.top - GAP - size.height;
    panel.style.left = `${Math.max(EDGE, Math.min(left, innerWidth - size.width - EDGE))}px`;
    panel.style.top = `${Math.max(EDGE, Math.min(top, innerHeight - size.height - EDGE))}px`;
  };
  const show = () => {
    const step = steps[number], found = target();
    sessionStorage.setItem(KEY, number);
    count.textContent = words.count.replace("{number}", number + 1).replace("{total}", steps.length);
    title.textContent = step.title;
    text.textContent = step.text;
    back.hidden = number === 0;
    next.textContent = number === steps.length - 1 ? words.done : words.next;
    if (hasMenu()) document.body.classList.toggle("dl-nav-open", Boolean(found?.closest(".dl-nav")));
    if (found) found.scrollIntoView({ block: !isNarrow() ? "nearest" : found.offsetHeight > innerHeight / 2 ? "start" : "center" });
    place();
    panel.focus({ preventScroll: true });
  };
  const go = (by) => {
    if (number + by < 0) return;
    number += by;
    if (number >= steps.length) end(); else show();
  };
  const isTyping = (element) => element?.closest?.("input, textarea, select, [contenteditable=true]");
  const pressed = (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || isTyping(event.target)) return;
    const act = { ArrowRight: () => go(1), ArrowLeft: () => go(-1), Escape: end }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };
  let following = null;
  const end = () => {
    clearInterval(following);
    removeEventListener("resize", place);
    document.removeEventListener("scroll", place, true);
    document.removeEventListener("keydown", pressed);
    ring.remove();
    panel.remove();
    sessionStorage.removeItem(KEY);
    document.body.classList.remove("dl-nav-open");
    document.getElementById("tour-over")?.click(); // the server remembers
    document.getElementById("main")?.focus({ preventScroll: true });
  };
  const begin = () => {
    document.body.append(ring, panel);
    skip.addEventListener("click", end);
    back.addEventListener("click", () => go(-1));
    next.addEventListener("click", () => go(1));
    addEventListener("resize", place);
    document.addEventListener("scroll", place, true);
    document.addEventListener("keydown", pressed);
    following = setInterval(place, 300); // lists on the page grow and shrink
    show();
  };
  const waiting = setInterval(() => {
    if (!window.socket?.connected || !document.getElementById("tour-over") || !target()) return;
    clearInterval(waiting);
    begin();
  }, 100);
})();
