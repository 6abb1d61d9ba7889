"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const plot = byId("timeline"), heat = byId("together"), video = byId("video"), readout = byId("readout");
  if (!plot) return;  // no face
  const unit = data.timed ? "time (s)" : data.independent ? "face" : "frame";
  const ROW = 70, LABEL = 21, MARGIN = {l: 34, r: 8, t: 30, b: 46};  // pixels: of one AU, its name, around the plot
  const BAR = -0.1;  // height at which the bars lie that say "active"
  const MISSING = 0xffff, ACTIVE = 0x8000, SCORE = 0x7fff, STEPS = 32766;  // see _series in report/html.py
  let face = null, seekable = false;

  // Plotly reads a little HTML, and %{...} in templates: names from files are neither.
  const plain = (text) => text.replace(/[&<>%{}]/g, (c) => `&#${c.charCodeAt(0)};`);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  function bytes(text) {
    const binary = atob(text), array = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) array[i] = binary.charCodeAt(i);
    return array;
  }

  function decoded(record) {
    const frames = new Int32Array(bytes(record.frames).buffer);
    const x = record.times ? new Float64Array(bytes(record.times).buffer) : Float64Array.from(frames);
    const all = new Uint16Array(bytes(record.values).buffer);
    const values = data.aus.map((_, k) => all.subarray(k * x.length, (k + 1) * x.length));
    const own = (all) => data.aus.map((_, k) => all.subarray(k * x.length, (k + 1) * x.length));
    const before = record.raw ? own(new Uint16Array(bytes(record.raw).buffer)) : values;
    return {...record, frames, x, values, adjusted: values, before};
  }

  /** The index of the first row at or after x. */
  function rowFrom(x) {
    let low = 0, high = face.x.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (face.x[middle] < x) low = middle + 1; else high = middle;
    }
    return low;
  }

  /** Where the frame of a row ends: with the next frame, or a usual step on if the face is not in that. */
  const endOf = (row) => face.frames[row + 1] === face.frames[row] + 1 ? face.x[row + 1] : face.x[row] + data.step;

  /** The row whose frame is shown at x or, if `nearest`, begins nearest to it; -1 where the face is missing. */
  function rowAt(x, nearest) {
    const row = rowFrom(x + data.step * 0.1) - 1, ahead = face.x[row + 1] - x;
    const shown = row >= 0 && x <= endOf(row) + data.step * 0.01;
    if (nearest && ahead < (shown ? x - face.x[row] : data.step / 2)) return row + 1;
    return shown ? row : -1;
  }

  const score = (value) => value === MISSING ? null : (value & SCORE) / STEPS;

  /**
   * Points of one AU between two rows: all of them, or the lowest and highest of every `size` rows, so that no peak is
   * lost. A gap breaks the line, and no group goes over one that can be seen. What is shorter than `least` is drawn so
   * long, or it could not be seen.
   */
  function points(values, from, to, size, least, marked) {
    const line = {x: [], y: [], frame: []}, bars = {x: [], y: []};
    const put = (x, y, frame) => { line.x.push(x); line.y.push(y); line.frame.push(frame); };
    const broken = (row) => data.independent || values[row] === MISSING || values[row - 1] === MISSING ||
      face.frames[row] !== face.frames[row - 1] + 1 && (size === 1 || face.x[row] - face.x[row - 1] > least);
    let end = from, alone = false;  // whether the last point has no line to it
    const close = () => {
      const last = line.x.length - 1;
      if (alone && !marked) put(line.x[last] + least, line.y[last], line.frame[last]);
    };
    while (end < to) {
      const start = end++;
      const gap = start > from && broken(start);
      if (gap) {
        close();
        put(null, null, null);
      }
      while (end < to && end < start + size && !broken(end)) end++;
      alone = false;
      if (values[start] === MISSING) continue;
      let low = start, high = start, first = -1, last = -1;
      for (let row = start; row < end; row++) {
        if ((values[row] & SCORE) < (values[low] & SCORE)) low = row;
        if ((values[row] & SCORE) > (values[high] & SCORE)) high = row;
        if (values[row] & ACTIVE) { if (first < 0) first = row; last = row; }
      }
      for (const row of low === high ? [low] : low < high ? [low, high] : [high, low]) {
        put(face.x[row], score(values[row]), face.names ? plain(face.names[row]) : face.frames[row]);
      }
      alone = (gap || start === from) && low === high;
      if (first >= 0) {
        const stop = Math.max(endOf(last), face.x[first] + least), before = bars.x.length - 2;
        if (before >= 0 && face.x[first] - bars.x[before] < data.step * 0.5) bars.x[before] = stop;
        else { bars.x.push(face.x[first], stop, null); bars.y.push(BAR, BAR, null); }
      }
    }
    close();
    return {line, bars};
  }

  const ends = () => {
    const last = face.x[face.x.length - 1] + data.step, pad = (last - face.x[0]) * 0.005;
    return [face.x[0] - pad, last + pad];
  };

  /** What is drawn of the part in sight, and of half of its width on either side. */
  function columns([left, right]) {
    const margin = (right - left) / 2, width = Math.max(plot.clientWidth - MARGIN.l - MARGIN.r, 200);
    const from = Math.max(rowFrom(left - margin) - 1, 0), to = Math.min(rowFrom(right + margin) + 1, face.x.length);
    const inside = rowFrom(right) - rowFrom(left);
    const size = inside <= 2 * width ? 1 : Math.ceil(inside / width);
    const drawn = {x: [], y: [], customdata: [], mode: []};
    const mode = data.independent ? "markers" : inside < width / 6 ? "lines+markers" : "lines";
    for (const values of face.values) {
      const {line, bars} = points(values, from, to, size, (right - left) / width, mode !== "lines");
      drawn.x.push(line.x, bars.x);
      drawn.y.push(line.y, bars.y);
      drawn.customdata.push(line.frame, null);
      drawn.mode.push(mode, "lines");
    }
    return drawn;
  }

  function draw() {
    const count = data.aus.length, inner = count * ROW, range = ends();
    const look = {font: {family: "system-ui, sans-serif", size: 12, color: color("ink")},
      paper_bgcolor: color("paper"), plot_bgcolor: color("paper")};
    const drawn = columns(range), traces = [];
    const layout = {...look, height: inner + MARGIN.t + MARGIN.b, margin: MARGIN, showlegend: false, hovermode: "x",
      hoverdistance: 30, hoveranywhere: true, clickanywhere: true, annotations: [],
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      modebar: {orientation: "h", bgcolor: color("paper"), color: color("faint"), activecolor: color("ink")},
      hoverlabel: {bgcolor: color("paper"), bordercolor: color("line"), font: {color: color("ink")}},
      xaxis: {title: {text: unit}, hoverformat: data.timed ? ".3f" : "d", range: [...range], minallowed: range[0], maxallowed: range[1], anchor: `y${count}`,
        gridcolor: color("grid"), zeroline: false, showspikes: true, spikemode: "across", spikesnap: "cursor",
        spikethickness: 1, spikedash: "solid", spikecolor: color("faint")},
      shapes: [{type: "line", xref: "x", yref: "paper", x0: range[0], x1: range[0], y0: 0, y1: 1, visible: false,
        line: {color: color("mark"), width: 2}}]};
    data.aus.forEach((au, k) => {
      const axis = k ? `y${k + 1}` : "y", name = plain(au.name);
      const value = data.timed ? "%{x:.3f} s, frame %{customdata}" : face.names ? "%{customdata}" : "frame %{customdata}";
      traces.push({type: "scatter", mode: drawn.mode[2 * k], x: drawn.x[2 * k], y: drawn.y[2 * k], yaxis: axis, name,
        customdata: drawn.customdata[2 * k], hovertemplate: `${name} %{y:.3f}<br>${value}<extra></extra>`,
        line: {color: color("line"), width: 1.25}, marker: {color: color("line"), size: 4}, connectgaps: false});
      traces.push({type: "scatter", mode: "lines", x: drawn.x[2 * k + 1], y: drawn.y[2 * k + 1], yaxis: axis, name,
        hoverinfo: "skip", line: {color: color("active"), width: 5}, connectgaps: false});
      const top = 1 - (k * ROW + LABEL) / inner;
      layout[k ? `yaxis${k + 1}` : "yaxis"] = {domain: [1 - (k + 1) * ROW / inner, top], range: [-0.16, 1.04],
        fixedrange: true, tickvals: [0, 0.5, 1], tickfont: {size: 10}, gridcolor: color("grid"), zeroline: false};
      const graded = face.intensities ? `  ${face.intensities[k]}` : "";
      layout.annotations.push({text: plain(au.label + graded), xref: "paper", yref: "paper", x: 0, y: top, xanchor: "left",
        yanchor: "bottom", showarrow: false, font: {size: 12}});
      const threshold = face.thresholds[k];
      if (threshold !== null) {
        layout.shapes.push({type: "line", xref: "paper", x0: 0, x1: 1, yref: axis, y0: threshold, y1: threshold,
          line: {color: color("threshold"), width: 1, dash: "dash"}});
      }
    });
    // The buttons one by one, because one of the usual ones sends the data to a server.
    const config = {responsive: true, displaylogo: false, displayModeBar: true, doubleClick: "reset", plotlyServerURL: "",
      modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]]};
    Plotly.react(plot, traces, layout, config);
    drawHeat(look);
  }

  function drawHeat(look) {
    const kind = byId("measure").value, signed = kind === "correlation", z = face.together[kind];
    const names = data.aus.map((au) => plain(au.name));
    const side = Math.min(heat.clientWidth, 700), most = Math.max(0.01, ...z.flat().filter((v) => v !== null));
    Plotly.react(heat, [{type: "heatmap", x: names, y: names, z, zmin: signed ? -1 : 0,
      zmax: kind === "both" ? most : 1, colorscale: signed ? "RdBu" : "Viridis", reversescale: signed, xgap: 1, ygap: 1,
      texttemplate: side > 600 ? "%{z:.2f}" : "", textfont: {size: 9}, hoverongaps: false,
      hovertemplate: "%{y} and %{x}: %{z:.3f}<extra></extra>", colorbar: {thickness: 12, outlinewidth: 0}}],
    {...look, width: side, height: side * 0.92, margin: {l: 8, r: 8, t: 8, b: 8}, dragmode: false,
      xaxis: {type: "category", automargin: true, tickangle: -90, fixedrange: true, showgrid: false, dtick: 1},
      yaxis: {type: "category", automargin: true, autorange: "reversed", fixedrange: true, showgrid: false, dtick: 1}},
    {displayModeBar: false});
  }

  function read(x, row) {
    const where = data.timed ? `${x.toFixed(3)} s` : "";
    if (row < 0) {
      readout.textContent = `${where || `${unit} ${Math.round(x)}`}: this face is not found here`;
      return;
    }
    const active = data.aus.filter((_, k) => face.values[k][row] !== MISSING && face.values[k][row] & ACTIVE)
      .map((au) => `${au.name} ${score(face.values[data.aus.indexOf(au)][row]).toFixed(2)}`);
    const at = data.timed ? `${face.x[row].toFixed(3)} s, frame ${face.frames[row]}` : face.names ? face.names[row] : `frame ${face.frames[row]}`;
    readout.textContent = `${at}. Active: ${active.join(", ") || "none"}`;
  }

  function mark(x, row) {
    Plotly.relayout(plot, {"shapes[0].x0": x, "shapes[0].x1": x, "shapes[0].visible": true});
    read(x, row);
  }

  function go(x) {
    const row = rowAt(x, true);
    mark(x, row);
    if (!seekable) return;
    // Into the middle of the frame: its very start may still show the one before.
    const aim = row < 0 ? x : (face.x[row] + endOf(row)) / 2;
    video.currentTime = Math.min(Math.max(aim, 0), video.duration || Infinity);
  }

  /** The scores with the person's baseline, or those before it. */
  function setBaseline() {
    face.values = byId("baseline")?.checked === false ? face.before : face.adjusted;
  }

  function choose(index) {
    face = decoded(data.faces[index]);
    setBaseline();
    for (const section of document.querySelectorAll("section.face")) {
      section.hidden = section.dataset.face !== String(face.id);
    }
    readout.textContent = "Point at the timeline to read its scores.";
    draw();
  }

  function follow() {
    const note = byId("video-note");
    const complain = (what) => {
      note.textContent = `${what} MP4 with H.264, or WebM with VP8 or VP9, plays in most browsers. The rest of the page works.`;
      note.hidden = false;
      seekable = false;
    };
    const check = () => {
      if (video.error) {
        complain(byId("clip") ? "This browser cannot play this video."
          : "This browser cannot play this video, or the file is not where the page looks for it.");
      } else if (video.readyState >= video.HAVE_METADATA) {
        seekable = data.timed;
        if (!video.videoWidth) complain("This browser plays the sound of this video, but not its images.");
      }
    };
    video.addEventListener("error", check);
    video.addEventListener("loadedmetadata", check);
    check();  // either may have been before this program
    const show = () => { if (seekable) mark(video.currentTime, rowAt(video.currentTime, false)); };
    video.addEventListener("seeked", show);
    let last = -Infinity;
    const tick = (now) => {
      if (video.paused || video.ended) return;
      if (now - last > 60) { last = now; show(); }
      requestAnimationFrame(tick);
    };
    video.addEventListener("play", () => requestAnimationFrame(tick));
    video.addEventListener("pause", show);
    const clip = byId("clip");
    if (clip) {
      video.src = URL.createObjectURL(new Blob([bytes(clip.textContent)]));
      clip.textContent = "";
    }
  }

  choose(0);
  plot.on("plotly_relayout", (change) => {
    if (Object.keys(change).some((key) => key.startsWith("xaxis"))) Plotly.restyle(plot, columns(plot.layout.xaxis.range));
  });
  plot.on("plotly_hover", (event) => { if (event.xvals) read(event.xvals[0], rowAt(event.xvals[0], true)); });
  plot.on("plotly_click", (event) => { if (event.xvals) go(event.xvals[0]); });
  byId("face")?.addEventListener("change", (event) => {
    choose(data.faces.findIndex((record) => String(record.id) === event.target.value));
  });
  byId("measure").addEventListener("change", draw);
  byId("baseline")?.addEventListener("change", () => { setBaseline(); draw(); });
  for (const button of document.querySelectorAll("button[data-time], button[data-onset]")) {
    button.addEventListener("click", () => go(Number(button.dataset.time ?? button.dataset.onset)));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const root = document.documentElement;
  addEventListener("beforeprint", () => { root.dataset.print = ""; draw(); });
  addEventListener("afterprint", () => { delete root.dataset.print; draw(); });
  if (video) follow();
})();
