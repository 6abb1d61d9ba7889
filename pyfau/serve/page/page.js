// One session at a time: a camera over a WebSocket, or a clip over one POST. Frames reach `show` as the server describes
// them: {frame, time_s, face, box, landmarks, scores, active}, without the last five where there is no face.

const WIDEST = 640; // pixels of a camera frame that is sent
const KEPT_MS = 1500; // how long the bars of a lost face stay, greyed
const COLOURS = ["#52beac", "#ecb256", "#7aa6ec", "#e2808a", "#ac94e2", "#9ec462"];
const CAMERA_ERRORS = {
  NotAllowedError: "The browser has no permission to use the camera. Allow it next to the address of this page, then start again.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera could not be read; another program may be using it.",
};
const GONE = "The server does not answer. If it was ended, start pyfau serve again and reload this page.";

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((node) => [node.id, node]));
const { video, overlay, image, slider } = element;
const cards = new Map(); // face number -> its bars
let settings = null;
let session = null; // what runs now: {camera, stop()}
let shown = { faces: [], width: 1, height: 1 };

function say(text) { element.status.textContent = text; }

function complain(text) {
  element.error.textContent = text;
  element.error.hidden = !text;
}

function begin(camera) {
  session?.stop();
  complain("");
  for (const card of cards.values()) card.root.remove();
  cards.clear();
  for (const node of [element.csv, element.slide, element.progress, image]) node.hidden = true;
  element.nobody.hidden = false;
  element.nobody.textContent = "No face yet.";
  shown = { faces: [], width: 1, height: 1 };
  const begun = { camera, stop: () => {} };
  session = begun;
  image.classList.toggle("mirrored", camera);
  element.stop.disabled = false;
  element.clock.hidden = element.speed.hidden = true;
  return begun;
}

function end(ended, text, error) {
  if (session !== ended) return; // another has begun
  session = null;
  ended.stop();
  for (const card of cards.values()) card.root.classList.add("lost");
  element.stop.disabled = true;
  element.progress.hidden = true;
  say(text);
  if (error) complain(error);
}

function fit(width, height) {
  image.hidden = false;
  image.style.aspectRatio = `${width} / ${height}`;
  image.style.maxWidth = `calc(65vh * ${width / height})`;
}

function makeCard(number) {
  const root = document.createElement("article");
  root.className = "face";
  root.style.setProperty("--colour", COLOURS[number % COLOURS.length]);
  const title = document.createElement("h2");
  title.textContent = `Face ${number}`;
  root.append(title);
  const bars = settings.aus.map(({ au, name, threshold }) => {
    const label = `${au} ${name}`.trim();
    const line = document.createElement("div");
    line.className = "au";
    line.innerHTML = '<span class="name"></span><div class="bar" role="meter" aria-valuemin="0" aria-valuemax="1"><i></i><s></s></div><output aria-live="off"></output>';
    const [text, bar, value] = line.children;
    text.textContent = label;
    bar.setAttribute("aria-label", label);
    bar.title = `threshold ${threshold.toFixed(2)}`;
    bar.lastChild.style.left = `calc(${100 * threshold}% - 1px)`;
    root.append(line);
    return { line, bar, value };
  });
  const after = [...cards.entries()].filter(([other]) => other > number).sort(([a], [b]) => a - b)[0];
  element.faces.insertBefore(root, after ? after[1].root : null);
  const card = { root, bars, seen: 0 };
  cards.set(number, card);
  return card;
}

function show(rows, width, height) {
  const faces = rows.filter((row) => row.face !== undefined);
  const now = performance.now();
  shown = { faces, width, height };
  for (const row of faces) {
    const card = cards.get(row.face) ?? makeCard(row.face);
    card.seen = now;
    row.scores.forEach((score, i) => {
      const { line, bar, value } = card.bars[i];
      line.classList.toggle("active", row.active[i]);
      bar.firstChild.style.width = `${100 * score}%`;
      bar.setAttribute("aria-valuenow", score.toFixed(2));
      bar.setAttribute("aria-valuetext", `${score.toFixed(2)}${row.active[i] ? ", active" : ""}`);
      value.textContent = score.toFixed(2);
    });
  }
  for (const [number, card] of cards) {
    card.root.classList.toggle("lost", card.seen !== now);
    if (now - card.seen > (session?.camera ? KEPT_MS : 0)) {
      card.root.remove();
      cards.delete(number);
    }
  }
  element.nobody.hidden = cards.size > 0;
  element.nobody.textContent = "No face in this frame.";
  element.clock.hidden = rows[0].time_s === null;
  if (!element.clock.hidden) element.time.textContent = `${rows[0].time_s.toFixed(2)} s`;
  draw();
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  overlay.width = Math.round(overlay.clientWidth * ratio);
  overlay.height = Math.round(overlay.clientHeight * ratio);
  const pen = overlay.getContext("2d");
  const scale = overlay.width / shown.width;
  const size = 14 * ratio;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  for (const { face, box, landmarks } of shown.faces) {
    const colour = COLOURS[face % COLOURS.length];
    const at = (x) => (session?.camera ? shown.width - x : x) * scale;
    const [left, right] = [at(box[0]), at(box[2])].sort((a, b) => a - b);
    const [top, bottom] = [box[1] * scale, box[3] * scale];
    for (const [style, width] of [["#121418", 4], [colour, 2]]) {
      pen.strokeStyle = style;
      pen.lineWidth = width * ratio;
      pen.strokeRect(left, top, right - left, bottom - top);
    }
    for (const [x, y] of landmarks) {
      pen.beginPath();
      pen.arc(at(x), y * scale, 2.5 * ratio, 0, 2 * Math.PI);
      pen.fillStyle = colour;
      pen.fill();
      pen.lineWidth = ratio;
      pen.strokeStyle = "#121418";
      pen.stroke();
    }
    const label = `face ${face}`;
    const high = size * 1.4;
    const wide = pen.measureText(label).width + size;
    const [x, y] = [Math.max(0, Math.min(left - ratio, overlay.width - wide)), Math.max(0, top - high)];
    pen.fillStyle = colour;
    pen.fillRect(x, y, wide, high);
    pen.fillStyle = "#121418";
    pen.fillText(label, x + size / 2, y + size * 1.05);
  }
}

// Calls `call(time)` for each frame that the video shows, until `begun` is not the session any more.
function onFrames(begun, call) {
  const step = (now, frame) => {
    if (session !== begun) return;
    call(frame?.mediaTime ?? video.currentTime);
    ask(step);
  };
  const ask = (next) => (video.requestVideoFrameCallback ? video.requestVideoFrameCallback(next) : requestAnimationFrame(next));
  ask(step);
}

async function startCamera() {
  const begun = begin(true);
  if (!navigator.mediaDevices) {
    end(begun, "", "The browser gives cameras only to pages on this machine (http://localhost:...) or over https.");
    return;
  }
  say("Waiting for the camera …");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: WIDEST }, height: { ideal: 480 } } });
  } catch (error) {
    end(begun, "", CAMERA_ERRORS[error.name] ?? `The camera could not be started: ${error.message}`);
    return;
  }
  const free = () => stream.getTracks().forEach((track) => track.stop());
  if (session !== begun) { free(); return; }
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/camera`);
  begun.stop = () => { socket.close(); free(); video.srcObject = null; image.hidden = true; };
  stream.getVideoTracks()[0].onended = () => end(begun, "Stopped.", "The camera was disconnected.");
  video.removeAttribute("src");
  video.controls = false;
  video.srcObject = stream;

  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d");
  const answered = []; // times of the last answers
  let sent = null; // when the frame was taken whose answer is awaited
  let fresh = false; // whether the camera has shown a frame since
  let problem = "";
  const send = () => {
    if (sent !== null || !fresh || socket.readyState !== WebSocket.OPEN) return; // one frame in flight
    [sent, fresh] = [performance.now(), false];
    const scale = Math.min(1, WIDEST / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    pen.drawImage(video, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => { if (socket.readyState === WebSocket.OPEN) socket.send(blob); }, "image/jpeg", 0.85);
  };
  socket.onopen = () => { say("Scoring the camera."); send(); };
  socket.onmessage = ({ data }) => {
    if (session !== begun) return;
    const answer = JSON.parse(data);
    const now = performance.now();
    problem = answer.error ? sentence(answer.error) : "";
    complain(problem);
    if (!problem) {
      answered.push(now);
      if (answered.length > 20) answered.shift();
      element.speed.hidden = answered.length < 2;
      element.rate.textContent = ((1000 * (answered.length - 1)) / (now - answered[0])).toFixed(1);
      element.latency.textContent = `${Math.round(now - sent)} ms`;
      show(answer.rows, answer.width, answer.height);
    }
    sent = null;
    send();
  };
  socket.onclose = () => end(begun, "Stopped.", problem || GONE);
  video.onloadedmetadata = () => fit(video.videoWidth, video.videoHeight);
  onFrames(begun, () => { fresh = true; send(); });
  video.play().catch(() => {}); // it is stopped before it has begun
}

async function startClip(file) {
  const begun = begin(false);
  if (file.size > settings.clip_bytes) {
    const [given, most] = [file.size, settings.clip_bytes].map((bytes) => `${(bytes / 1e6).toFixed(1)} MB`);
    end(begun, "", `The clip has ${given}; this server takes at most ${most}.`);
    return;
  }
  const stopped = new AbortController();
  begun.stop = () => stopped.abort();
  element.progress.hidden = false;
  element.progress.removeAttribute("value");
  say("Sending the clip …");
  const frames = []; // {time, rows}, in order
  let clip = null;
  let last = null; // {csv, warnings}
  try {
    const response = await fetch("clip", { method: "POST", body: file, signal: stopped.signal });
    if (!response.ok) {
      end(begun, "", sentence((await response.json()).error));
      return;
    }
    for await (const record of lines(response.body)) {
      if (session !== begun) return;
      if (record.error) {
        end(begun, "", sentence(record.error));
        return;
      }
      if (record.rows) {
        collect(frames, record.rows, clip);
        show(frames.at(-1).rows, clip.width, clip.height);
        if (clip.frames) element.progress.value = Math.min(1, frames.length / clip.frames);
        say(`Scoring the clip: ${frames.length}${clip.frames ? ` of ${clip.frames}` : ""} frames.`);
      } else if (record.csv) last = record;
      else clip = record;
    }
  } catch (error) {
    end(begun, "", error.name === "AbortError" ? "" : GONE);
    return;
  }
  if (session !== begun) return;
  if (!last) {
    end(begun, "", GONE);
    return;
  }
  element.progress.hidden = true;
  say(`${frames.length} frame${frames.length === 1 ? "" : "s"} scored. The server has deleted the clip.`);
  if (last.warnings.length) complain(`The clip is damaged: ${last.warnings.join("; ")}.`);
  play(begun, file, frames, clip, last.csv);
}

function play(begun, file, frames, clip, csv) {
  const source = URL.createObjectURL(file);
  const table = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
  element.csv.href = table;
  element.csv.download = `${file.name.replace(/\.[^.]*$/, "")}.csv`;
  element.csv.hidden = false;
  begun.stop = () => {
    video.onerror = video.onseeked = video.onloadedmetadata = null;
    video.pause();
    video.removeAttribute("src");
    video.load();
    [source, table].forEach((url) => URL.revokeObjectURL(url));
    for (const node of [image, element.slide, element.csv]) node.hidden = true;
  };
  const showAt = (time) => {
    const { rows } = frames[find(frames, time + 0.25 / (clip.fps || 30))];
    show(rows, clip.width, clip.height);
  };
  fit(clip.width, clip.height);
  video.onseeked = () => showAt(video.currentTime);
  video.onerror = () => {
    video.pause();
    image.hidden = true;
    element.slide.hidden = false;
    slider.max = frames.length - 1;
    slider.oninput = () => show(frames[slider.value].rows, clip.width, clip.height);
    slider.value = 0;
    slider.oninput();
    complain("This browser cannot play the clip. Its scores are here all the same: move the slider, or download them.");
  };
  video.onloadedmetadata = () => { if (!video.videoWidth) video.onerror(); }; // it would play the sound alone
  video.controls = true;
  video.src = source;
  onFrames(begun, (time) => { if (!image.hidden) showAt(time); });
  video.play().catch(() => {}); // onerror says why
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

function collect(frames, rows, clip) {
  for (const row of rows) {
    const last = frames.at(-1);
    if (last?.rows[0].frame === row.frame) last.rows.push(row);
    else frames.push({ time: row.time_s ?? row.frame / (clip.fps || 25), rows: [row] });
  }
}

// The last frame that begins at or before a time; the first if none does.
function find(frames, time) {
  let [low, high] = [0, frames.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (frames[middle].time <= time) low = middle;
    else high = middle - 1;
  }
  return low;
}

function sentence(text) { return `${text[0].toUpperCase()}${text.slice(1)}.`; }

async function open() {
  try {
    settings = await (await fetch("settings")).json();
  } catch {
    complain(GONE);
    return;
  }
  element.model.textContent = `model ${settings.model}, aligner ${settings.aligner}`;
  element.privacy.textContent = settings.local
    ? "Nothing leaves this machine: images go from this page to the pyfau server on it and nowhere else, and nothing is kept."
    : `Images go from this page over the network, unencrypted, to the pyfau server at ${location.host} and nowhere else. It keeps nothing.`;
  element.camera.onclick = startCamera;
  element.stop.onclick = () => session && end(session, "Stopped.");
  element.file.onchange = () => { if (element.file.files.length) startClip(element.file.files[0]); };
  element.file.onclick = () => { element.file.value = ""; }; // so that the same clip can be chosen again
  new ResizeObserver(draw).observe(image);
}

open();
