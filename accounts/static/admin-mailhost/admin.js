// The content security policy allows no styles within pages, and nothing needs htmx to run text.
htmx.config.includeIndicatorStyles = false;
htmx.config.allowEval = false;

// Select2 takes the place of a field and leaves its label behind: screen readers need it back.
function label() {
  for (const field of document.querySelectorAll("select.select2-hidden-accessible")) {
    const name = field.labels[0]?.textContent.replace("*", "").trim();
    const shown = field.nextElementSibling;
    if (!name || !shown) continue;
    for (const part of shown.querySelectorAll(".select2-selection, .select2-selection__rendered")) {
      part.setAttribute("aria-label", name);
      part.removeAttribute("aria-labelledby");
    }
  }
}

// Among jQuery's own, after what makes them.
window.addEventListener("load", () => window.django?.jQuery?.(label));

// What unfold makes of spans and of links that lead nowhere is for the mouse alone: let the keyboard use it, too.
window.addEventListener("load", () => {
  const parts = "span[x-on\\:click], a[x-on\\:click]:not([href]), #nav-sidebar div[x-on\\:click]";
  for (const part of document.querySelectorAll(parts)) {
    part.tabIndex = 0;
    part.setAttribute("role", "button");
    part.addEventListener("keydown", (event) => {
      if (event.target !== part || (event.key !== "Enter" && event.key !== " ")) return;
      event.preventDefault();
      part.click();
    });
  }
  // An icon is a word in a font of its own: where nothing else tells what a button does, that word does, translated.
  const icons = ".material-symbols-outlined";
  const called = document.getElementById("icons")?.dataset ?? {};
  for (const part of document.querySelectorAll("a, button, [role=button]")) {
    const says = [...part.querySelectorAll(icons)].reduce((text, icon) => text.replace(icon.textContent, ""), part.textContent);
    if ((says.trim() && !part.matches(icons)) || part.ariaLabel || part.title) continue;
    const icon = part.matches(icons) ? part : part.querySelector(icons);
    const word = icon?.textContent.trim();
    if (word) part.ariaLabel = called[word] ?? word.replaceAll("_", " ");
  }
  for (const icon of document.querySelectorAll(`${icons}:not([role])`)) icon.ariaHidden = "true";
  // Regions that scroll are all called alike.
  for (const part of document.querySelectorAll(".simplebar-content-wrapper")) {
    const name = part.closest("#nav-sidebar") ? called.side_bar : called.search;
    if (name) part.ariaLabel = name;
  }
  document.querySelectorAll("#content .simplebar-content-wrapper").forEach((part, at) => {
    part.ariaLabel = [document.title.split("|")[0].trim(), at || ""].join(" ").trim();
  });
});

// Unfold's search takes Enter for a choice only once something is found: let it wait for that, and take the first.
// An answer may be to what stood in the field before more was typed: only the one to what stands there now counts.
const searched = { term: null, open: false };
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.id === "search-input-command") searched.term = null;
});
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.target.id !== "command-results") return;
  searched.term = event.detail.requestConfig.parameters.s;
  if (searched.open && searched.term === document.getElementById("search-input-command").value) openFound();
});
function openFound() {
  const list = document.getElementById("command-results-list");
  const link = list?.querySelector(".active a") ?? list?.querySelector("a");
  searched.open = false;
  if (link) window.location = link.href;
}
document.addEventListener("keydown", (event) => {
  const field = event.target;
  if (field.id !== "search-input-command" || event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  searched.open = searched.term !== field.value;
  if (!searched.open) openFound();
}, true);
