// Shows the planes in a frame or a cine.

import { at, count, duration, say, takeUploads, title } from "./upload.js";

const SVG = "http://www.w3.org/2000/svg";
const ATTENTION = [255, 140, 26]; // orange stands out from grey tissue, whatever colours one sees
const OPACITY = 0.6;

let prediction = null;

const percent = (value) => (value > 0.9995 && value < 1 ? "> 99.9 %" : `${(100 * value).toFixed(1)} %`);
const answer = (frame) => {
  const { smoothed } = frame;
  const [top] = Object.entries(smoothed).reduce((one, other) => (other[1] > one[1] ? other : one));
  return frame.plane ? `${frame.plane}, ${percent(frame.probability)}` : `Undecided (${top} ${percent(frame.probability)})`;
};

function show(content) {
  prediction = content;
  const { frames, undecodable, pictures, missing, best, threshold, model } = content;
  const isSingle = frames.length + undecodable.length === 1;
  at("answer").className = isSingle ? "single" : "cine";
  at("answer").hidden = false;
  say(`${count(frames.length, "frame")} in ${duration(content.ms)}`);
  showVerdict(isSingle);
  at("missing").hidden = isSingle || missing.length === 0;
  at("missing").textContent = `Not found: ${missing.join(", ")}.`;
  at("undecodable").hidden = undecodable.length === 0;
  if (undecodable.length) {
    at("undecodable").textContent = `${count(undecodable.length, "frame")} cannot be read: ${undecodable.join(", ")}.`;
  }
  const surest = frames.reduce((one, other) => (other.probability > one.probability ? other : one));
  const first = best.length ? best.map((found) => found.frame) : [surest.frame];
  const shown = first.map((number) => pictures.find((picture) => picture.frame === number));
  at("pictures").replaceChildren(...shown.map((picture) => showPicture(picture, isSingle)));
  showAttention(shown, model.attention_grid);
  at("threshold").hidden = threshold === null;
  at("threshold").textContent = `Below ${percent(threshold)}${isSingle ? "" : " over the frames so far"} the model is undecided.`;
  at("timeline").hidden = isSingle;
  if (!isSingle) showTimeline();
  select(first[0]);
  at("verdict").focus();
}

function showVerdict(isSingle) {
  const { frames, best } = prediction;
  if (isSingle) {
    const [frame] = frames;
    at("verdict").textContent = frame.plane ?? answer(frame);
    at("explanation").textContent = frame.plane
      ? `with a probability of ${percent(frame.probability)}`
      : "The most probable class is not certain enough for an answer.";
    return;
  }
  at("verdict").textContent = best.length ? "Best frames" : "No plane found";
  at("explanation").textContent = best.length
    ? "One of each plane that was found, with its probability."
    : "The frame with the most certain answer is shown.";
}

function showAttention(shown, grid) {
  const explained = shown.some((picture) => picture.attention);
  const size = grid && `${grid[0]} × ${grid[1]} positions`;
  at("attend").hidden = !explained;
  at("attend").querySelector("span").textContent = `Show where the network attends (${size}, smoothed)`;
  at("unexplained").hidden = explained;
  at("unexplained").textContent = grid
    ? `The attention of this model has ${size}: too few to show where it looks.`
    : "This model does not tell where it attends.";
}

function showPicture(picture, isSingle) {
  const figure = at("picture").content.cloneNode(true);
  const frame = prediction.frames.find((other) => other.frame === picture.frame);
  const best = prediction.best.find((other) => other.frame === picture.frame);
  const [image, canvas] = figure.querySelectorAll("img, canvas");
  image.src = picture.source;
  image.width = picture.width;
  image.height = picture.height;
  image.alt = `Frame ${picture.frame}: ${answer(frame)}`;
  if (picture.attention) drawAttention(canvas, picture);
  const caption = figure.querySelector("figcaption");
  caption.hidden = isSingle;
  caption.querySelector("b").textContent = best ? best.plane : answer(frame);
  caption.querySelector("span").textContent = best ? percent(best.probability) : "";
  const button = caption.querySelector("button");
  button.textContent = title(frame);
  button.addEventListener("click", () => select(picture.frame));
  return figure;
}

function drawAttention(canvas, picture) {
  const { values, box, outline } = picture.attention;
  const grid = new ImageData(values[0].length, values.length);
  values.flat().forEach((value, index) => grid.data.set([...ATTENTION, 255 * OPACITY * value], 4 * index));
  const small = document.createElement("canvas");
  small.width = grid.width;
  small.height = grid.height;
  small.getContext("2d").putImageData(grid, 0, 0);
  const scale = Math.min(1, 720 / Math.max(picture.width, picture.height));
  canvas.width = Math.round(scale * picture.width);
  canvas.height = Math.round(scale * picture.height);
  const [top, left, bottom, right] = box.map((edge) => scale * edge);
  const context = canvas.getContext("2d");
  context.beginPath();
  for (const [x, y] of outline) context.lineTo(scale * x, scale * y);
  context.clip(); // outside of the sector there is no anatomy, whatever the network makes of it
  context.imageSmoothingQuality = "high";
  context.drawImage(small, left, top, right - left, bottom - top);
}

function showTimeline() {
  const { classes, frames, undecodable, best } = prediction;
  const total = frames.length + undecodable.length;
  const rows = classes.map((name) => {
    const row = document.createElement("div");
    const label = document.createElement("span");
    const chart = document.createElement("div");
    const found = best.find((other) => other.plane === name);
    row.className = found ? "row found" : "row";
    label.textContent = name;
    chart.className = "chart";
    chart.append(drawProbability(name, total));
    if (found) {
      const mark = document.createElement("i");
      mark.textContent = "▾";
      mark.style.left = `${(100 * (found.frame + 0.5)) / total}%`;
      chart.append(mark);
    }
    const cursor = document.createElement("span");
    cursor.className = "cursor";
    chart.append(cursor);
    chart.addEventListener("pointerdown", (event) => {
      const { left, width } = chart.getBoundingClientRect();
      select(Math.floor((total * (event.clientX - left)) / width));
    });
    row.append(label, chart);
    return row;
  });
  at("rows").replaceChildren(...rows);
  at("position").max = total - 1;
}

function drawProbability(name, total) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${total} 1`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const isAnswer of [false, true]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", isAnswer ? "answered" : "any");
    const columns = prediction.frames
      .filter((frame) => (frame.plane === name) === isAnswer)
      .map((frame) => `M${frame.frame},1v${-frame.smoothed[name]}h1.03v${frame.smoothed[name]}z`);
    path.setAttribute("d", columns.join(""));
    svg.append(path);
  }
  return svg;
}

function select(number) {
  const { classes, frames, undecodable, pictures } = prediction;
  const total = frames.length + undecodable.length;
  const frame = frames.find((other) => other.frame === number);
  const told = frame ? answer(frame) : "cannot be read";
  const name = frame ? title(frame) : `frame ${number}`;
  at("position").value = number;
  at("position").setAttribute("aria-valuetext", `${name}: ${told}`);
  const [image, caption] = at("viewer").children;
  image.src = pictures.find((picture) => picture.frame === number)?.source ?? "data:,";
  image.alt = `F${name.slice(1)}`;
  image.hidden = !frame;
  caption.textContent = `F${name.slice(1)}: ${told}`;
  at("selected").textContent = total === 1 ? "Probabilities" : `F${name.slice(1)}`;
  at("reading").hidden = total === 1;
  at("reading").textContent = frame ? `Over the frames so far: ${told}. This frame alone:` : "It cannot be read.";
  for (const cursor of document.querySelectorAll(".cursor")) cursor.style.left = `${(100 * (number + 0.5)) / total}%`;
  at("bars").replaceChildren(...(frame ? classes.map((plane) => drawBar(frame, plane)) : []));
}

function drawBar(frame, plane) {
  const bar = at("bar").content.cloneNode(true);
  const probability = frame.probabilities[plane];
  bar.querySelector(".name").textContent = plane;
  bar.querySelector(".value").textContent = percent(probability);
  bar.querySelector(".fill").style.width = `${100 * probability}%`;
  if (frame.plane === plane) bar.querySelector("li").className = "answer";
  return bar;
}

at("overlay").addEventListener("change", () => at("pictures").classList.toggle("attended", at("overlay").checked));
at("position").addEventListener("input", () => select(Number(at("position").value)));
takeUploads(show);
