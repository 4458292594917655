// Shows the head that was found in a frame, or in each frame of a cine.

import { at, count, duration, say, takeUploads, title } from "./upload.js";

const SVG = "http://www.w3.org/2000/svg";

let measurement = null;

const length = (value, unit) => `${value.toFixed(1)} ${unit}`;
const answer = (frame) =>
  frame.circumference === null ? "no head" : `head circumference ${length(frame.circumference, frame.unit)}`;
const capital = (text) => text[0].toUpperCase() + text.slice(1);

function show(content) {
  measurement = content;
  const { frames, undecodable } = content;
  const isSingle = frames.length + undecodable.length === 1;
  at("answer").className = isSingle ? "single" : "cine";
  at("answer").hidden = false;
  say(`${count(frames.length, "frame")} in ${duration(content.ms)}`);
  at("undecodable").hidden = undecodable.length === 0;
  if (undecodable.length) {
    at("undecodable").textContent = `${count(undecodable.length, "frame")} cannot be read: ${undecodable.join(", ")}.`;
  }
  if (isSingle) showFrameVerdict(frames[0]);
  else showCineVerdict();
  at("timeline").hidden = isSingle;
  if (!isSingle) showTimeline();
  select((frames.find((frame) => frame.ellipse) ?? frames[0]).frame);
  at("verdict").focus();
}

function showFrameVerdict(frame) {
  at("verdict").textContent = capital(answer(frame));
  at("explanation").textContent = frame.ellipse ? withoutSize([frame]) : "The network has marked nothing in this frame.";
}

function showCineVerdict() {
  const { frames, circumference } = measurement;
  const found = frames.filter((frame) => frame.ellipse);
  if (!found.length) {
    at("verdict").textContent = "No head found";
    at("explanation").textContent = "The network has marked nothing in any frame.";
    return;
  }
  at("verdict").textContent = circumference
    ? `Head circumference ${length(circumference.median, circumference.unit)}`
    : "Heads of unlike units";
  const range = circumference
    ? `The median of ${count(found.length, "frame")}, from ${length(circumference.smallest, circumference.unit)} to ` +
      `${length(circumference.largest, circumference.unit)}. The model does not tell which of them shows the plane to be measured.`
    : "Some frames tell the size of a pixel, and others do not.";
  at("explanation").textContent = [range, withoutSize(found)].filter(Boolean).join(" ");
}

function withoutSize(frames) {
  return frames.some((frame) => frame.unit === "pixels")
    ? "In pixels, as the file does not tell the size of a pixel."
    : "";
}

function showTimeline() {
  const { frames, undecodable } = measurement;
  const total = frames.length + undecodable.length;
  const found = frames.filter((frame) => frame.ellipse);
  const highest = Math.max(...found.map((frame) => frame.circumference), 1e-9);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${total} 1`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("class", "answered");
  const columns = found.map((frame) => {
    const height = frame.circumference / highest;
    return `M${frame.frame},1v${-height}h1.03v${height}z`;
  });
  path.setAttribute("d", columns.join(""));
  svg.append(path);
  const cursor = document.createElement("span");
  cursor.className = "cursor";
  const chart = document.querySelector(".chart");
  chart.replaceChildren(svg, cursor);
  chart.onpointerdown = (event) => {
    const { left, width } = chart.getBoundingClientRect();
    select(Math.floor((total * (event.clientX - left)) / width));
  };
  at("scale").textContent = found.length ? `Up to ${length(highest, found[0].unit)}` : "No head";
  at("position").max = total - 1;
}

function select(number) {
  const { frames, undecodable, pictures } = measurement;
  const total = frames.length + undecodable.length;
  const frame = frames.find((other) => other.frame === number);
  const picture = pictures.find((other) => other.frame === number);
  const name = frame ? title(frame) : `frame ${number}`;
  const told = frame ? answer(frame) : "cannot be read";
  at("position").value = number;
  at("position").setAttribute("aria-valuetext", `${name}: ${told}`);
  for (const part of [at("shown"), at("found")]) part.hidden = !picture;
  if (picture) draw(picture, told);
  at("caption").textContent = total === 1 ? "" : `${capital(name)}: ${told}`;
  for (const cursor of document.querySelectorAll(".cursor")) cursor.style.left = `${(100 * (number + 0.5)) / total}%`;
}

function draw(picture, told) {
  const { width, height } = picture;
  at("shown").src = picture.source;
  at("shown").alt = `Frame ${picture.frame}: ${told}`;
  at("shown").width = width;
  at("shown").height = height;
  at("mask").src = picture.mask;
  at("outline").setAttribute("viewBox", `0 0 ${width} ${height}`);
  const corners = picture.outline.map(([x, y]) => `${x + 0.5},${y + 0.5}`); // a pixel's centre is half a pixel from its edge
  at("outline").firstElementChild.setAttribute("points", corners.join(" "));
}

at("overlay").addEventListener("change", () => at("found").classList.toggle("off", !at("overlay").checked));
at("position").addEventListener("input", () => select(Number(at("position").value)));
takeUploads(show);
