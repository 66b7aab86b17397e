// The content security policy allows no styles within pages, and nothing needs htmx to run text.
htmx.config.includeIndicatorStyles = false;
htmx.config.allowEval = false;

// Select2 takes the place of a field and leaves its label behind: screen readers need it back.
window.addEventListener("load", () => {
  for (const field of document.querySelectorAll("select.select2-hidden-accessible")) {
    const name = field.labels[0]?.textContent.replace("*", "").trim();
    const shown = field.nextElementSibling;
    if (!name || !shown) continue;
    for (const part of shown.querySelectorAll(".select2-selection, .select2-selection__rendered")) {
      part.setAttribute("aria-label", name);
      part.removeAttribute("aria-labelledby");
    }
  }
});
