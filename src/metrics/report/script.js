// Shows the values under the pointer: the nearest point of every named line, read back from its position.
(function () {
  var short = function (v) { return Math.abs(v) >= 1e5 || (v && Math.abs(v) < 1e-3) ? v.toExponential(2) : String(+v.toPrecision(4)); };
  var scaled = function (v, step, names) { var i = 0; while (Math.abs(v) >= 999.5 && i + 1 < names.length) { v /= step; i++; } return +v.toPrecision(3) + " " + names[i]; };
  var show = {
    plain: short,
    count: function (v) { return scaled(v, 1e3, ["", "k", "M", "G", "T"]).trim(); },
    percent: function (v) { return (100 * v).toFixed(1) + " %"; },
    bytes: function (v) { return scaled(v, 1e3, ["B", "kB", "MB", "GB", "TB"]); },
    seconds: function (v) { return v < 180 ? +v.toPrecision(3) + " s" : v < 10800 ? (v / 60).toFixed(1) + " min" : (v / 3600).toFixed(2) + " h"; }
  };
  var axis = function (text) {
    var p = text.split(","), low = +p[0], high = +p[1], from = +p[2], to = +p[3];
    return { at: from, format: show[p[5]], value: function (pixel) {
      var share = (pixel - from) / (to - from);
      return p[4] === "log" ? low * Math.pow(high / low, share) : low + share * (high - low);
    } };
  };
  document.querySelectorAll("svg.chart[data-x]").forEach(function (svg) {
    var x = axis(svg.dataset.x), y = axis(svg.dataset.y), lines = {};
    svg.querySelectorAll("polyline[data-name]").forEach(function (line) {
      var name = line.dataset.name, list = lines[name] = lines[name] || [];
      for (var i = 0; i < line.points.numberOfItems; i++) { list.push(line.points.getItem(i)); }
    });
    var tip = document.createElement("div"), cross = document.createElementNS(svg.namespaceURI, "line");
    tip.className = "tip"; tip.hidden = true; svg.parentNode.appendChild(tip);
    cross.setAttribute("class", "cross"); svg.appendChild(cross);
    var hide = function () { tip.hidden = true; cross.style.display = "none"; };
    hide();
    svg.addEventListener("pointermove", function (event) {
      var box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
      var pixel = (event.clientX - box.left) * scale, best = null, rows = [];
      Object.keys(lines).forEach(function (name) {
        var near = lines[name].reduce(function (a, b) { return a && Math.abs(a.x - pixel) <= Math.abs(b.x - pixel) ? a : b; }, null);
        if (!near || Math.abs(near.x - pixel) > 40) { return; }
        if (!best || Math.abs(near.x - pixel) < Math.abs(best.x - pixel)) { best = near; }
        rows.push((name ? name + ": " : "") + y.format(y.value(near.y)));
      });
      if (!best) { return hide(); }
      tip.textContent = "";
      [svg.dataset.xname + " " + x.format(x.value(best.x))].concat(rows.slice(0, 12)).forEach(function (row) {
        var line = document.createElement("div"); line.textContent = row; tip.appendChild(line);
      });
      tip.hidden = false; cross.style.display = "";
      ["x1", "x2"].forEach(function (end) { cross.setAttribute(end, best.x); });
      cross.setAttribute("y1", y.at); cross.setAttribute("y2", svg.dataset.y.split(",")[3]);
      var left = best.x / scale + 18, width = tip.offsetWidth;
      tip.style.left = (left + width > box.width ? Math.max(0, left - width - 26) : left) + "px";
      tip.style.top = "46px";
    });
    svg.addEventListener("pointerleave", hide);
  });
})();
