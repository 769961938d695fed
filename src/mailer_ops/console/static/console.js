// Copy buttons, refreshing lists, the search key, files of a mail. Every page works without it.
"use strict";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select it instead";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    document.querySelector("[data-find]").focus();
  }
  if (event.key === "Escape") {
    const open = event.target.closest("details.drop[open]");
    if (open) { open.open = false; open.querySelector("summary").focus(); }
  }
});

// An element with data-live reloads its page every so many seconds, one with data-late loads another URL once; the element with the
// same id replaces it. It is not replaced while the user types, selects text or has details open in it.
function busy(element) {
  return element.contains(document.activeElement) || Boolean(element.querySelector("details[open]")) || !getSelection().isCollapsed;
}

async function reload(element, address) {
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (!answer.ok) return element;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById(element.id);
  if (!fresh || busy(element)) return element;
  for (const id of ["lead"]) {
    const [old, now] = [document.getElementById(id), page.getElementById(id)];
    if (old && now) old.replaceWith(now);
  }
  element.replaceWith(fresh);
  return fresh;
}

function refresh(element) {
  setTimeout(async () => {
    let next = element;
    if (!document.hidden && !busy(element)) {
      try { next = await reload(element, location.href); } catch { /* the console is stopped or restarting: try again */ }
    }
    if (next.dataset.live) refresh(next);
    else if (next !== element) location.reload();
  }, Number(element.dataset.live) * 1000);
}

addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-live]").forEach(refresh);
  document.querySelectorAll("[data-late]").forEach((element) => reload(element, element.dataset.late).catch(() => {}));
});

// Files are sent as base64 in the form, in the format of the API.
document.addEventListener("change", async (event) => {
  const input = event.target.closest("[data-files]");
  if (!input) return;
  const files = await Promise.all([...input.files].map((file) => new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done({ filename: file.name, content: reader.result.slice(reader.result.indexOf(",") + 1) });
    reader.onerror = failed;
    reader.readAsDataURL(file);
  })));
  document.getElementById(input.dataset.files).value = files.length ? JSON.stringify(files) : "";
  document.getElementById(`${input.dataset.files}-names`).textContent = files.map((file) => file.filename).join(", ");
});
