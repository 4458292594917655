// Sends a chosen file to /predict and gives what comes back to the page. Nothing is loaded from elsewhere, nothing is kept.

export const at = (id) => document.getElementById(id);
export const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
export const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
const seconds = (frame) => (frame.time_ms === null ? "" : `, ${(frame.time_ms / 1000).toFixed(2)} s`);
export const title = (frame) => `frame ${frame.frame}${seconds(frame)}`;

export function say(text, isAlert = false) {
  at("status").textContent = isAlert ? "" : text;
  at("alert").textContent = isAlert ? text : "";
  at("alert").hidden = !isAlert;
}

async function send(file, show) {
  const megabytes = Number(at("file").dataset.megabytes);
  at("answer").hidden = true;
  if (file.size > 1e6 * megabytes) {
    say(`The upload is larger than ${megabytes} MB.`, true);
    return;
  }
  at("drop").classList.add("busy");
  at("file").disabled = true;
  say("At work …");
  try {
    const form = new FormData();
    form.append("file", file, "upload"); // the name of the file stays here
    const response = await fetch("predict?pictures=true", { method: "POST", body: form });
    const content = await response.json();
    if (!response.ok) throw new Error(content.detail);
    show(content);
  } catch (error) {
    say(error instanceof TypeError ? "The server does not answer." : error.message, true);
  } finally {
    at("drop").classList.remove("busy");
    at("file").disabled = false;
    at("file").value = ""; // so that the same file can be chosen again
  }
}

export function takeUploads(show) {
  at("file").addEventListener("change", () => at("file").files[0] && send(at("file").files[0], show));
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault(); // or the browser would leave the page for the file
      at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
      const file = kind === "drop" && !at("file").disabled && event.dataTransfer.files[0];
      if (file) send(file, show);
    });
  }
}
