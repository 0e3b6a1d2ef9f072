(() => {
  const root = document.documentElement, key = "danlu-language";
  const stored = () => { try { return localStorage.getItem(key); } catch { return null; } };
  const show = (language) => {
    root.dataset.lang = language;
    root.lang = language === "zh" ? "zh-CN" : "en";
    for (const button of document.querySelectorAll("[data-set-lang]")) {
      button.setAttribute("aria-pressed", String(button.dataset.setLang === language));
    }
  };
  const asked = new URLSearchParams(location.search).get("lang");
  const wanted = [asked, stored(), navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en"].find((l) => l === "zh" || l === "en");
  show(wanted);
  document.addEventListener("DOMContentLoaded", () => {
    show(wanted);
    for (const button of document.querySelectorAll("[data-set-lang]")) {
      button.addEventListener("click", () => {
        show(button.dataset.setLang);
        try { localStorage.setItem(key, button.dataset.setLang); } catch { /* a file without storage forgets the choice */ }
      });
    }
  });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
})();
