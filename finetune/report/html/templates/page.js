"use strict";
(() => {
  const theme = document.getElementById("theme");
  const root = document.documentElement;
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.hidden = false;
  theme.setAttribute("aria-label", "Switch between light and dark");
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
  label();

  const value = (row, index) => {
    const cell = row.cells[index];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
  };
  const missing = (found) => found === "–" || found === "";
  const order = (a, b, sign) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  const sort = (table, index, head) => {
    const numbers = Array.from(table.tBodies[0].rows).some((row) => typeof value(row, index) === "number");
    const before = head.getAttribute("aria-sort");
    const next = before ? (before === "ascending" ? "descending" : "ascending") : numbers ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", next);
    const rows = Array.from(table.tBodies[0].rows);
    rows.sort((a, b) => order(value(a, index), value(b, index), next === "ascending" ? 1 : -1));
    table.tBodies[0].append(...rows);
  };
  for (const table of document.querySelectorAll("table")) {
    Array.from(table.tHead.rows[0].cells).forEach((head, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, index, head));
      head.append(button);
    });
  }

  for (const box of document.querySelectorAll("[data-search]")) {
    const tools = document.createElement("div");
    tools.className = "tools";
    const input = document.createElement("input");
    const count = document.createElement("span");
    input.type = "search";
    input.placeholder = "Search";
    input.setAttribute("aria-label", "Search " + box.querySelector("caption").textContent);
    count.setAttribute("role", "status");
    input.addEventListener("input", () => {
      const rows = Array.from(box.querySelectorAll("tbody tr"));
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      count.textContent = words.length ? rows.filter((row) => !row.hidden).length + " of " + rows.length : "";
    });
    tools.append(input, count);
    box.prepend(tools);
  }

  for (const gallery of document.querySelectorAll(".gallery")) {
    const images = Array.from(gallery.querySelectorAll("img[data-overlay]"));
    if (!images.length) continue;
    const button = document.createElement("button");
    button.type = "button";
    const show = (overlay) => {
      button.setAttribute("aria-pressed", String(overlay));
      button.textContent = overlay ? "Show the images alone" : "Show what the network looks at";
      for (const image of images) {
        const other = image.dataset.overlay;
        image.dataset.overlay = image.src;
        image.src = other;
      }
    };
    button.setAttribute("aria-pressed", "false");
    button.textContent = "Show what the network looks at";
    button.addEventListener("click", () => show(button.getAttribute("aria-pressed") !== "true"));
    gallery.querySelector("h3").after(button);
  }

  for (const block of document.querySelectorAll(".code")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const text = block.querySelector("code").textContent;
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        const area = document.createElement("textarea");
        area.value = text;
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.querySelector("pre").before(button);
  }
})();
