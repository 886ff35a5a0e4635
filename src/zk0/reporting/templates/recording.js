(() => {
  "use strict";
  const snippet = document.getElementById("snippet");
  const ticks = [...document.querySelectorAll(".tick")];
  const only = document.getElementById("only");
  const copy = document.getElementById("copy");

  function write() {
    const chosen = ticks.filter((tick) => tick.checked).map((tick) => tick.value);
    snippet.textContent = chosen.length
      ? `data:\n  leave_out: {${snippet.dataset.name}: [${chosen.join(", ")}]}`
      : "data:\n  leave_out: {}";
  }

  if (snippet) {
    for (const tick of ticks) tick.addEventListener("change", write);
    write();
  } else {
    for (const tick of ticks) tick.hidden = true;
  }
  if (copy && navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(snippet.textContent);
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
  }
  if (only) {
    document.getElementById("filter").hidden = false;
    only.addEventListener("change", () => {
      document.querySelector(".episodes").classList.toggle("only", only.checked);
    });
  }
})();
