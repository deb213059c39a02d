// Records from /events -> tiles and charts, drawn like those of the report.
(function () {
  "use strict";
  var MAX_POINTS = 4096, MAX_LINES = 10, WIDTH = 480, HEIGHT = 280, SVG = "http://www.w3.org/2000/svg";
  var byId = function (id) { return document.getElementById(id); };
  var scaled = function (v, step, names) {
    var i = 0;
    while (Math.abs(v) >= 0.9995 * step && i + 1 < names.length) { v /= step; i++; }
    return (+v.toPrecision(3) + " " + names[i]).trim();
  };
  var show = {
    plain: function (v) { return Math.abs(v) >= 1e5 || (v && Math.abs(v) < 1e-3) ? v.toExponential(1) : String(+v.toPrecision(3)); },
    count: function (v) { return scaled(v, 1e3, ["", "k", "M", "G", "T"]); },
    percent: function (v) { return +(100 * v).toFixed(1) + " %"; },
    bytes: function (v) { return scaled(v, 1e3, ["B", "kB", "MB", "GB", "TB", "PB"]); },
    seconds: function (v) {
      if (v < 60) { return +v.toPrecision(3) + " s"; }
      if (v < 3600) { return +(v / 60).toPrecision(3) + " min"; }
      return v < 86400 ? +(v / 3600).toPrecision(3) + " h" : +(v / 86400).toPrecision(3) + " d";
    }
  };

  // Data of the run: steps thinned evenly to MAX_POINTS, all evaluations.
  var run = null, steps = [], stride = 1, evals = [], last = null, lastEval = null, wallRate = null, ended = null;
  var reset = function (start) {
    run = start; steps = []; stride = 1; evals = []; last = lastEval = wallRate = ended = null;
    byId("warnings").textContent = "";
  };
  var addStep = function (step) {
    if (last && step.wall_s > last.wall_s) {
      var rate = (step.total_trained_samples - last.total_trained_samples) / (step.wall_s - last.wall_s);
      wallRate = wallRate === null ? rate : wallRate + 0.1 * (rate - wallRate);
    }
    if (steps.length && steps[steps.length - 1].step % stride) { steps.pop(); }
    steps.push(step);
    last = step;
    if (steps.length > MAX_POINTS) {
      stride *= 2;
      steps = steps.filter(function (kept) { return kept.step % stride === 0 || kept === last; });
    }
  };
  var warn = function (text) {
    var line = document.createElement("p");
    line.className = "warn"; line.textContent = text;
    byId("warnings").appendChild(line);
    while (byId("warnings").childElementCount > 8) { byId("warnings").firstChild.remove(); }
  };

  // Charts.
  var element = function (parent, name, attributes, text) {
    var made = document.createElementNS(SVG, name);
    Object.keys(attributes).forEach(function (key) { made.setAttribute(key, attributes[key]); });
    if (text !== undefined) { made.textContent = text; }
    parent.appendChild(made);
    return made;
  };
  var ticks = function (low, high, count, unit) {
    var step = (high - low) / count || 1, power = Math.pow(10, Math.floor(Math.log10(step))), share = step / power;
    step = power * (share <= 1 ? 1 : share <= 2 ? 2 : share <= 5 ? 5 : 10);
    if (unit === "count") { step = Math.max(1, step); }
    if (unit === "seconds") {
      var clock = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400];
      if (step >= 1) { step = clock.find(function (nice) { return nice >= 0.99 * step; }) || step; }
    }
    var list = [];
    for (var v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9 * step && list.length < 20; v += step) {
      list.push(Math.abs(v) < 1e-9 * step ? 0 : v);
    }
    return list;
  };
  var logTicks = function (low, high) {
    var list = [], first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
    var every = Math.max(1, Math.ceil((last - first) / 5));
    for (var power = first; power <= last; power += every) { list.push(Math.pow(10, power)); }
    return list;
  };
  var drawn = function (series, log) {
    return series.map(function (line) {
      var points = line.points.filter(function (p) {
        return p[0] !== null && p[1] !== null && isFinite(p[0]) && isFinite(p[1]) && (!log || p[1] > 0);
      });
      return { name: line.name, color: line.color, kind: line.kind || "line", points: points };
    }).filter(function (line) { return line.points.length; });
  };
  var draw = function (card, chart) {
    var log = !!chart.log, lines = drawn(chart.series(), log), svg = card.svg;
    svg.textContent = "";
    element(svg, "title", {}, chart.title);
    element(svg, "desc", {}, chart.about);
    element(svg, "text", { "class": "ink", x: 12, y: 22, "font-size": 15, "font-weight": 600 }, chart.title);
    card.lines = [];
    if (!lines.length) {
      element(svg, "text", { "class": "muted", x: WIDTH / 2, y: HEIGHT / 2, "font-size": 13, "text-anchor": "middle" }, "no data yet");
      return;
    }
    var x = { low: Infinity, high: -Infinity }, y = { low: Infinity, high: -Infinity };
    (chart.include || []).forEach(function (v) { y.low = Math.min(y.low, v); y.high = Math.max(y.high, v); });
    lines.forEach(function (line) {
      line.points.forEach(function (p) {
        x.low = Math.min(x.low, p[0]); x.high = Math.max(x.high, p[0]);
        y.low = Math.min(y.low, p[1]); y.high = Math.max(y.high, p[1]);
      });
    });
    if (x.low === x.high) { x.low -= 0.5; x.high += 0.5; }
    if (log) {
      if (y.high / y.low < 10) { y.low /= 3; y.high *= 3; }
    } else if (y.low === y.high) {
      if (y.low === 0) { y.high = 1; } else { y.low -= 0.1 * Math.abs(y.low); y.high += 0.1 * Math.abs(y.high); }
    } else if (chart.unit !== "percent" || y.high < 1) {
      y.high += 0.05 * (y.high - y.low);
    }
    var top = 50, bottom = HEIGHT - 40, left = 62, right = WIDTH - 14;
    var px = function (v) { return left + (v - x.low) / (x.high - x.low) * (right - left); };
    var py = function (v) {
      var share = log ? Math.log(v / y.low) / Math.log(y.high / y.low) : (v - y.low) / (y.high - y.low);
      return bottom - share * (bottom - top);
    };
    (log ? logTicks(y.low, y.high) : ticks(y.low, y.high, 5, chart.unit)).forEach(function (v) {
      element(svg, "polyline", { "class": "grid", points: left + "," + py(v) + " " + right + "," + py(v) });
      element(svg, "text", { "class": "muted", x: left - 7, y: py(v) + 4, "font-size": 12, "text-anchor": "end" }, show[chart.unit](v));
    });
    ticks(x.low, x.high, 5, chart.over.unit).forEach(function (v) {
      element(svg, "polyline", { "class": "axis", points: px(v) + "," + bottom + " " + px(v) + "," + (bottom + 4) });
      element(svg, "text", { "class": "muted", x: px(v), y: bottom + 18, "font-size": 12, "text-anchor": "middle" }, show[chart.over.unit](v));
    });
    element(svg, "polyline", { "class": "axis", points: left + "," + bottom + " " + right + "," + bottom });
    element(svg, "text", { "class": "muted", x: (left + right) / 2, y: HEIGHT - 6, "font-size": 12, "text-anchor": "middle" }, chart.over.name);
    var at = left;
    lines.forEach(function (line) {
      var color = "c" + line.color % 10, text = line.points.map(function (p) { return px(p[0]).toFixed(1) + "," + py(p[1]).toFixed(1); });
      var attributes = { "class": color + (line.kind === "faint" ? " faint" : ""), "stroke-width": line.kind === "faint" ? 1 : 1.8 };
      if (line.kind === "dashed") { attributes["stroke-dasharray"] = "5 4"; }
      attributes.points = text.join(" ");
      element(svg, "polyline", attributes);
      if (line.kind === "dots" || line.points.length === 1) {
        line.points.forEach(function (p) { element(svg, "circle", { "class": color + " dot", cx: px(p[0]), cy: py(p[1]), r: 2.6 }); });
      }
      if (!line.name) { return; }
      if (lines.length > 1 && at < right - 40) {
        element(svg, "rect", { "class": color + " dot", x: at, y: 34, width: 12, height: 3 });
        var label = element(svg, "text", { "class": "ink", x: at + 16, y: 40, "font-size": 12 }, line.name);
        at += 26 + (label.getComputedTextLength() || 7 * line.name.length);
      }
      card.lines.push({ name: line.name, points: line.points });
    });
    card.scale = { px: px, xs: chart.over, unit: chart.unit, top: top, bottom: bottom };
  };
  var pointer = function (card) {
    var svg = card.svg, tip = card.tip;
    var hide = function () { tip.hidden = true; if (card.cross) { card.cross.remove(); card.cross = null; } };
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("pointermove", function (event) {
      hide();
      if (!card.lines.length) { return; }
      var box = svg.getBoundingClientRect(), scale = WIDTH / box.width, pixel = (event.clientX - box.left) * scale;
      var best = null, rows = [];
      card.lines.forEach(function (line) {
        var near = line.points.reduce(function (a, b) {
          return a && Math.abs(card.scale.px(a[0]) - pixel) <= Math.abs(card.scale.px(b[0]) - pixel) ? a : b;
        }, null);
        var off = Math.abs(card.scale.px(near[0]) - pixel);
        if (off > 40) { return; }
        if (best === null || off < Math.abs(card.scale.px(best) - pixel)) { best = near[0]; }
        rows.push(line.name + ": " + show[card.scale.unit](near[1]));
      });
      if (best === null) { return; }
      var at = card.scale.px(best), left = at / scale + 18;
      card.cross = element(svg, "line", { "class": "cross", x1: at, x2: at, y1: card.scale.top, y2: card.scale.bottom });
      tip.textContent = "";
      [card.scale.xs.name + " " + show[card.scale.xs.unit](best)].concat(rows.slice(0, 12)).forEach(function (row) {
        var line = document.createElement("div"); line.textContent = row; tip.appendChild(line);
      });
      tip.hidden = false;
      tip.style.left = (left + tip.offsetWidth > box.width ? Math.max(0, left - tip.offsetWidth - 26) : left) + "px";
      tip.style.top = "46px";
    });
  };

  // What is drawn.
  var STEP = { name: "step", unit: "count" }, TIME = { name: "cluster time", unit: "seconds" };
  var of = function (list, x, y) { return list.map(function (record) { return [record[x], y(record)]; }); };
  var field = function (name) { return function (record) { return record[name]; }; };
  var smoothed = function (points) {
    var mean = null;
    return points.map(function (p) {
      if (p[1] === null || !isFinite(p[1])) { return p; }
      mean = mean === null ? p[1] : mean + 0.1 * (p[1] - mean);
      return [p[0], mean];
    });
  };
  var perDevice = function (x, name) {
    var count = last && last[name] ? last[name].length : 0, lines = [];
    if (count <= MAX_LINES) {
      for (var i = 0; i < count; i++) {
        lines.push({ name: "d" + i, color: i, points: of(steps, x, (function (d) { return function (s) { return s[name][d]; }; })(i)) });
      }
      return lines;
    }
    var folds = { lowest: Math.min, highest: Math.max };
    Object.keys(folds).forEach(function (fold, i) {
      lines.push({ name: fold, color: i, points: of(steps, x, function (s) { return folds[fold].apply(null, s[name]); }) });
    });
    lines.push({ name: "mean", color: 2, points: of(steps, x, function (s) { return s[name].reduce(function (a, b) { return a + b; }, 0) / count; }) });
    return lines;
  };
  var charts = [
    { place: "learning", title: "Test accuracy", about: "Share of test images classified right, over cluster time.", over: TIME, unit: "percent", include: [0],
      series: function () { return [{ name: "top-1", color: 0, kind: "dots", points: of(evals, "time_s", field("top1")) }, { name: "top-5", color: 1, kind: "dots", points: of(evals, "time_s", field("top5")) }]; } },
    { place: "learning", title: "Loss", about: "Mean cross-entropy in nats, over cluster time.", over: TIME, unit: "plain",
      series: function () {
        var points = of(steps, "time_s", field("loss"));
        return [{ name: "", color: 0, kind: "faint", points: points }, { name: "training", color: 0, points: smoothed(points) },
          { name: "test", color: 1, kind: "dots", points: of(evals, "time_s", field("loss")) }];
      } },
    { place: "streams", title: "Batch per device, samples", about: "Samples that each device trained on, per step.", over: STEP, unit: "count", include: [0],
      series: function () { return perDevice("step", "local_batch"); } },
    { place: "streams", title: "Waiting samples per device", about: "Samples waiting in the buffer of each device after a step.", over: TIME, unit: "count", include: [0],
      series: function () { return perDevice("time_s", "occupancy_samples"); } },
    { place: "communication", title: "Bytes sent so far", about: "Gradient bytes of all devices since the run began.", over: TIME, unit: "bytes", include: [0],
      series: function () {
        return [{ name: "sent", color: 0, points: of(steps, "time_s", field("total_sent_bytes")) },
          { name: "dense would be", color: 8, kind: "dashed", points: of(steps, "time_s", field("total_dense_bytes")) }];
      } },
    { place: "communication", title: "Bytes per step", about: "Gradient bytes of all devices per step; powers of ten.", over: STEP, unit: "bytes", log: true,
      series: function () {
        return [{ name: "sent", color: 0, points: of(steps, "step", field("sent_bytes")) },
          { name: "dense would be", color: 8, kind: "dashed", points: of(steps, "step", field("dense_bytes")) }];
      } },
    { place: "communication", title: "Time of a step", about: "Cluster time of each step and its parts.", over: STEP, unit: "seconds", include: [0],
      series: function () {
        return [["step", "step_s"], ["waiting", "wait_s"], ["computing", "compute_s"], ["communicating", "comm_s"]].map(function (part, i) {
          return { name: part[0], color: i, points: of(steps, "step", field(part[1])) };
        });
      } },
    { place: "communication", title: "Learning rate", about: "Learning rate applied, per step.", over: STEP, unit: "plain", include: [0],
      series: function () { return [{ name: "lr", color: 0, points: of(steps, "step", field("lr")) }]; } }
  ];
  var cards = charts.map(function (chart) {
    var figure = document.createElement("figure"), svg = document.createElementNS(SVG, "svg"), tip = document.createElement("div");
    figure.className = "card"; tip.className = "tip"; tip.hidden = true;
    svg.setAttribute("class", "chart"); svg.setAttribute("role", "img"); svg.setAttribute("viewBox", "0 0 " + WIDTH + " " + HEIGHT);
    figure.appendChild(svg); figure.appendChild(tip); byId(chart.place).appendChild(figure);
    var card = { svg: svg, tip: tip, lines: [] };
    pointer(card);
    return card;
  });

  var sum = function (list) { return (list || []).reduce(function (a, b) { return a + b; }, 0); };
  var tiles = function () {
    var list = [];
    if (lastEval) { list.push([show.percent(lastEval.top1), "top-1 test accuracy (top-5 " + show.percent(lastEval.top5) + ")"]); }
    if (last) {
      var saved = last.total_dense_bytes / Math.max(1, last.total_sent_bytes);
      list.push([last.loss === null ? "–" : last.loss.toFixed(3), "training loss of step " + last.step],
        [show.seconds(last.time_s), "cluster time, " + show.seconds(last.wall_s) + " here"],
        [show.count(last.total_trained_samples), "samples trained on" + (wallRate ? ", " + show.count(wallRate) + "/s here" : "")],
        [show.bytes(last.total_sent_bytes), "gradient bytes sent, " + +saved.toPrecision(3) + "x less than dense"],
        [show.percent(last.total_compressed_steps / last.step), "of the steps sent compressed"],
        [show.count(sum(last.occupancy_samples)), "samples waiting (" + show.bytes(sum(last.occupancy_bytes)) + ")"],
        [show.count(sum(last.dropped_samples)), "samples dropped of " + show.count(sum(last.arrived_samples)) + " arrived"]);
    }
    var place = byId("tiles");
    place.textContent = "";
    list.forEach(function (pair) {
      var tile = document.createElement("div"), value = document.createElement("b"), what = document.createElement("span");
      tile.className = "tile"; value.textContent = pair[0]; what.textContent = pair[1];
      tile.appendChild(value); tile.appendChild(what); place.appendChild(tile);
    });
  };
  var status = function (kind, text) { byId("status").className = "status " + kind; byId("status").textContent = text; };
  var headline = function () {
    if (!run) { return; }
    var config = run.config, devices = config.cluster.devices;
    document.title = config.name + (last ? " " + last.step + "/" + config.run.steps : "") + " · scadles";
    byId("name").textContent = config.name;
    byId("what").textContent = config.model.name + " (" + show.count(run.parameters) + " parameters) on " + run.data_set + ", " +
      devices + (devices === 1 ? " device" : " devices") + ", computed on " + run.computed_on +
      (last ? ": step " + last.step + " of " + config.run.steps : "");
    byId("progress").max = config.run.steps;
    byId("progress").value = last ? last.step : 0;
  };
  var waiting = false, drawnAt = 0;
  var redraw = function () {
    waiting = false; drawnAt = performance.now();
    headline(); tiles();
    cards.forEach(function (card, i) { draw(card, charts[i]); });
  };
  // At most two drawings a second, however fast the records come.
  var changed = function () {
    if (!waiting) { waiting = true; setTimeout(redraw, Math.max(0, 500 - (performance.now() - drawnAt))); }
  };

  var words = { steps: "all steps done", time: "time limit reached", target: "target accuracy reached", interrupted: "interrupted", diverged: "diverged" };
  var token = new URLSearchParams(location.search).get("token");
  var source = new EventSource("events" + (token ? "?token=" + encodeURIComponent(token) : ""));
  source.onopen = function () { if (!ended) { status("live", "live"); } };
  source.onerror = function () { if (!ended) { status("lost", "connection lost, trying again"); } };
  source.onmessage = function (message) {
    var record = JSON.parse(message.data);
    switch (record.event) {
      case "start": reset(record); status("live", "live"); break;
      case "warning": warn(record.text); break;
      case "step":
        addStep(record);
        (record.drift || []).forEach(function (drift) {
          warn("Step " + record.step + ": the " + drift.kind + " of device " + drift.device + " changed (drift).");
        });
        break;
      case "eval": evals.push(record); lastEval = record; break;
      case "end": ended = record.end; status(ended === "diverged" ? "bad" : "", "run ended: " + (words[ended] || ended)); break;
    }
    changed();
  };
  redraw();
})();
