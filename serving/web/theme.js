// The theme someone chose, set before the page is drawn.
{
  const THEMES = ["auto", "light", "dark"];
  const root = document.documentElement;
  const apply = (theme) => {
    root.dataset.theme = THEMES.includes(theme) ? theme : "auto";
  };
  const remember = (theme) => {
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // storage is switched off; the theme lasts as long as the page
    }
  };
  const recall = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  };
  apply(recall());
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => (button.textContent = `Theme: ${root.dataset.theme}`);
    label();
    button.addEventListener("click", () => {
      apply(THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length]);
      remember(root.dataset.theme);
      label();
    });
  });
}
