// The page about a domain's DNS: the states are fetched once the page stands, and texts are copied.
// Without this file a link asks DNS, and a text is selected whole at a touch.

async function ask(place) {
  const link = document.getElementById("dns-ask");
  const status = place.querySelector("[role=status]");
  status.textContent = link.dataset.waiting;
  place.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(place.dataset.ask, { credentials: "same-origin" });
    const seen = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("dns");
    if (!answer.ok || !seen) throw new Error("no such page");
    place.replaceChildren(...seen.childNodes);
  } catch {
    status.textContent = link.dataset.failed;
  }
  place.removeAttribute("aria-busy");
  showButtons(place);
}

function showButtons(place) {
  for (const button of place.querySelectorAll("button[data-copy]")) button.hidden = false;
}

async function copy(button) {
  const text = document.getElementById(button.dataset.copy);
  getSelection().selectAllChildren(text);
  try {
    await navigator.clipboard.writeText(text.textContent);
  } catch {
    if (!document.execCommand("copy")) return; // it is selected: a key copies it
  }
  const word = button.textContent;
  button.textContent = button.dataset.done;
  setTimeout(() => { button.textContent = word; }, 2000);
}

const place = document.getElementById("dns");
place.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy]");
  if (button) copy(button);
});
showButtons(place);
if (place.dataset.ask) ask(place);
