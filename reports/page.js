"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, text = "") => Object.assign(document.createElement(tag), { textContent: text });
  const many = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

  // Dark or light: as the system has it, until the reader chooses. A page opened from a disk may have no storage.
  const theme = document.querySelector(".theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  const told = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("orderbench-theme", root.dataset.theme); } catch { /* then it holds for this visit */ }
    told();
  });
  system.addEventListener("change", told);
  told();

  // The menu: on a phone it opens and closes; everywhere it says where the reader is.
  const bar = document.querySelector(".bar"), menu = bar.querySelector(".menu"), links = all(".sections a", bar);
  const open = (yes) => { bar.classList.toggle("open", yes); menu.setAttribute("aria-expanded", String(yes)); };
  menu.addEventListener("click", () => open(!bar.classList.contains("open")));
  links.forEach((link) => link.addEventListener("click", () => open(false)));
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    open(false);
    all(".columns[open]").forEach((one) => { one.open = false; });
  });
  addEventListener("click", (event) => {
    if (!bar.contains(event.target)) open(false);
    all(".columns[open]").forEach((one) => { if (!one.contains(event.target)) one.open = false; });
  });
  const places = links.map((link) => document.getElementById(link.hash.slice(1)));
  let current = null;
  const follow = () => {
    const below = bar.getBoundingClientRect().bottom + 24;
    const at = places.findLastIndex((place) => place && place.getBoundingClientRect().top <= below);
    if (links[at] === current) return;
    current?.removeAttribute("aria-current");
    current = links[at];
    if (!current) return;
    current.setAttribute("aria-current", "true");
    const list = current.closest(".sections");
    list.scrollLeft = current.offsetLeft - list.offsetLeft - list.clientWidth / 3;
  };
  addEventListener("scroll", follow, { passive: true });

  // The legend: an order is shown or hidden everywhere, by a class of the body. Pareto fronts are drawn again from the
  // points that are left; canvas.py says what a figure tells of its front.
  const hidden = (order) => document.body.classList.contains("off-" + order);
  const fronts = all("[data-front]").map((group) => {
    const figure = group.closest("svg"), path = group.querySelector("path"), label = figure.querySelector(".front-label");
    return { ...JSON.parse(group.dataset.front), group, path, label };
  });
  const front = (points, better) => {
    const sign = better === "left" ? 1 : -1;
    const beats = (a, b) => sign * a.x <= sign * b.x && a.y >= b.y && (a.x !== b.x || a.y !== b.y);
    return points.filter((one) => !points.some((other) => beats(other, one))).sort((a, b) => sign * (a.x - b.x));
  };
  const drawFronts = () => {
    for (const one of fronts) {
      const before = front(one.points, one.better);
      const left = front(one.points.filter((point) => !hidden(point.order)), one.better);
      one.group.style.display = left.length ? "" : "none";
      if (one.label) one.label.style.display = left.length ? "" : "none";
      if (!left.length) continue;
      const [X, Y] = one.worst;
      one.path.setAttribute("d", `M ${left[0].x} ${Y} ${left.map((p, i) => (i ? `H ${p.x} ` : "") + `V ${p.y}`).join(" ")} H ${X}`);
      if (one.label) { // its name moves with the end of the front, if that has moved
        const a = before[before.length - 1], b = left[left.length - 1];
        one.label.style.transform = a.x === b.x && a.y === b.y ? "" : `translate(${b.x - a.x}px, ${b.y - a.y}px)`;
      }
    }
  };
  const chips = all(".chip[data-order]"), again = document.querySelector(".show-all");
  const press = (chip, shown) => {
    chip.setAttribute("aria-pressed", String(shown));
    document.body.classList.toggle("off-" + chip.dataset.order, !shown);
  };
  const afterwards = () => {
    again.hidden = chips.every((chip) => !hidden(chip.dataset.order));
    drawFronts();
  };
  for (const chip of chips) {
    chip.addEventListener("click", () => { press(chip, hidden(chip.dataset.order)); afterwards(); });
  }
  again.addEventListener("click", () => { chips.forEach((chip) => press(chip, true)); afterwards(); });

  // Tables: numbers by value, words by alphabet; floors stay below, what is missing comes last.
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table), body = table.tBodies[0];
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.v;
      const order = (a, b) => {
        const floors = a.classList.contains("floor") - b.classList.contains("floor");
        if (floors) return floors;
        const x = value(a), y = value(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const both = !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y);
        return down ? -both : both;
      };
      [...body.rows].sort(order).forEach((row) => body.append(row));
    }));
  }

  // Columns: which are shown is the reader's choice, and those that the table's frame cuts off are counted beside it.
  for (const tabled of all(".tabled")) {
    const frame = tabled.querySelector(".frame"), scroll = tabled.querySelector(".scroll"), cue = tabled.querySelector(".cue");
    const heads = all("thead th", scroll), rows = all("tr", scroll), boxes = all(".choices input", tabled);
    const shown = (head) => getComputedStyle(head).display !== "none";
    const look = () => {
      const edge = scroll.getBoundingClientRect().right, seen = heads.filter(shown);
      const cut = seen.filter((head) => head.getBoundingClientRect().right > edge + 2).length;
      const moved = scroll.scrollLeft > 2;
      boxes.forEach((box, column) => { box.checked = shown(heads[column]); });
      tabled.querySelector(".told").textContent = `${seen.length} of ${heads.length}`;
      frame.classList.toggle("cut", cut > 0);
      frame.classList.toggle("moved", moved);
      cue.hidden = !cut && !moved;
      cue.textContent = cut ? `${many(cut, "more column")} \u2192` : "\u2190 back to the first";
    };
    cue.addEventListener("click", () => {
      const end = scroll.scrollLeft + scroll.clientWidth >= scroll.scrollWidth - 2;
      scroll.scrollTo({ left: end ? 0 : scroll.scrollLeft + 0.6 * scroll.clientWidth });
    });
    boxes.forEach((box, column) => box.addEventListener("change", () => {
      for (const row of rows) {
        row.cells[column].classList.toggle("on", box.checked);
        row.cells[column].classList.toggle("off", !box.checked);
      }
      look();
    }));
    scroll.addEventListener("scroll", look, { passive: true });
    new ResizeObserver(look).observe(scroll);
    look();
  }

  // The animation: every tick is one step of every arm, and an arm that is done stays; or all arms end together; or each
  // takes the time that was measured.
  const anchors = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129],
                   [92, 200, 99], [170, 220, 50], [253, 231, 37]];
  const color = (step, n) => {
    const place = step / Math.max(1, n - 1) * (anchors.length - 1), low = Math.min(Math.floor(place), anchors.length - 2);
    return anchors[low].map((c, i) => Math.round(c + (place - low) * (anchors[low + 1][i] - c)));
  };
  const arms = JSON.parse(document.getElementById("arms").textContent).map((arm) => {
    const card = document.getElementById(arm.id), canvas = card.querySelector("canvas"), ends = [];
    let sum = 0;
    for (const ms of arm.ms) ends.push(sum += ms);
    return { ...arm, canvas, image: card.querySelector(".map img"), count: card.querySelector(".count"), ends, total: sum,
             part: card.closest("section").id, pen: canvas.getContext("2d"),
             colors: Array.from({ length: arm.n }, (_, step) => color(step, arm.n)), drawn: -1 };
  });
  const draw = (arm, done) => {
    if (done === arm.drawn) return;
    arm.drawn = done;
    arm.canvas.hidden = done >= arm.n;
    arm.image.style.visibility = done >= arm.n ? "visible" : "hidden";
    const pixels = arm.pen.createImageData(arm.cols, arm.rows);
    let cells = 0;
    arm.steps.forEach((step, cell) => {
      if (step >= done) return;
      cells += 1;
      const [r, g, b] = step === done - 1 && done < arm.n ? [213, 94, 0] : arm.colors[step];
      pixels.data.set([r, g, b, 255], 4 * (arm.places ? arm.places[cell] : cell));
    });
    arm.pen.putImageData(pixels, 0, 0);
    arm.count.textContent = done >= arm.n ? `done in ${many(arm.n, "step")}`
      : `step ${done} of ${arm.n}, ${cells} of ${arm.steps.length} cells`;
  };
  for (const controls of all(".controls")) {
    const own = arms.filter((arm) => arm.part === controls.dataset.part);
    if (!own.length) { controls.hidden = true; continue; }
    const find = (selector) => controls.querySelector(selector);
    const play = find(".play"), seek = find(".seek"), pace = find(".pace"), rate = find(".rate"), clock = find(".clock");
    const longest = Math.max(...own.map((arm) => arm.n)), slowest = Math.max(...own.map((arm) => arm.total));
    const steps = () => pace.value === "steps", timed = () => pace.value === "time";
    const last = () => steps() ? longest : 1; // of the slider: a step, or the share of the whole
    const lasts = () => steps() ? 1000 * longest / rate.value : timed() ? 12000 : 8000; // milliseconds
    const times = (x) => x.toFixed(x < 10 ? 1 : 0);
    const slower = () => lasts() / slowest;
    const pacing = () => slower() < 1 ? `${times(1 / slower())} times sped up` : `${times(slower())} times slowed`;
    let frame = 0, at = longest, before = 0;
    const show = () => {
      for (const arm of own) {
        if (steps()) draw(arm, Math.min(arm.n, Math.floor(at)));
        else if (!timed()) draw(arm, Math.floor(at * arm.n));
        else if (arm.total) draw(arm, at >= 1 ? arm.n : arm.ends.filter((end) => end <= at * slowest).length);
        else { draw(arm, arm.n); arm.count.textContent = "not timed"; }
      }
      clock.textContent = steps() ? `step ${Math.floor(at)} of ${longest}`
        : timed() ? `${Math.round(at * slowest)} ms, ${pacing()}` : `${Math.round(100 * at)} % of every order's steps`;
      seek.max = last();
      seek.step = steps() ? 1 : 0.005;
      seek.value = at;
      rate.hidden = !steps();
    };
    const stop = () => { cancelAnimationFrame(frame); frame = 0; play.textContent = "Play"; };
    const to = (place) => { stop(); at = Math.min(last(), Math.max(0, place)); show(); };
    const tick = (now) => {
      at = Math.min(last(), at + last() * (now - before) / lasts());
      before = now;
      show();
      if (at >= last()) stop(); else frame = requestAnimationFrame(tick);
    };
    play.addEventListener("click", () => {
      if (frame) { stop(); return; }
      if (at >= last()) at = 0;
      play.textContent = "Pause";
      before = performance.now();
      frame = requestAnimationFrame(tick);
    });
    find(".earlier").addEventListener("click", () => to(steps() ? Math.ceil(at) - 1 : at - 1 / longest));
    find(".later").addEventListener("click", () => to(steps() ? Math.floor(at) + 1 : at + 1 / longest));
    seek.addEventListener("input", () => to(Number(seek.value)));
    let unit = last();
    pace.addEventListener("change", () => { at = at / unit * last(); unit = last(); if (steps()) at = Math.round(at); show(); });
    addEventListener("beforeprint", () => to(last()));
    show();
  }

  // Samples: one of them large, and what the other arms made in its place, from the same label and noise.
  const large = document.querySelector("dialog"), view = { sheet: null, at: 0 };
  const crop = (sheet, at, canvas) => {
    const { w, h, columns } = sheet.dataset, image = sheet.querySelector("img");
    const scale = image.naturalWidth / (columns * (Number(w) + 1) - 1); // a gap of one pixel between samples
    const [x, y] = [at % columns * (Number(w) + 1), Math.floor(at / columns) * (Number(h) + 1)].map((v) => v * scale);
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(h * scale);
    canvas.classList.toggle("pixels", image.classList.contains("pixels"));
    canvas.getContext("2d").drawImage(image, x, y, w * scale, h * scale, 0, 0, canvas.width, canvas.height);
  };
  const siblings = () => all(".sheets .enlarge", view.sheet.closest("section")).filter((one) => one.getClientRects().length);
  const count = (sheet) => Number(sheet.dataset.n);
  const enlarge = (sheet, at) => {
    Object.assign(view, { sheet, at });
    const labels = JSON.parse(sheet.dataset.labels), words = [`sample ${at + 1} of ${count(sheet)}`];
    if (sheet.dataset.seed) words.push(`seed ${sheet.dataset.seed}`);
    if (labels[at] !== undefined) words.push(labels[at]);
    large.querySelector("b").textContent = sheet.dataset.name;
    large.querySelector(".small").textContent = words.join(", ");
    crop(sheet, at, large.querySelector(".large"));
    large.querySelector(".large").setAttribute("aria-label", `${sheet.dataset.name}, ${words.join(", ")}`);
    large.querySelector(".alike").replaceChildren(...siblings().map((other) => {
      const button = make("button"), canvas = make("canvas");
      crop(other, Math.min(at, count(other) - 1), canvas);
      button.append(canvas, other.dataset.name);
      button.type = "button";
      button.addEventListener("click", () => {
        enlarge(other, Math.min(at, count(other) - 1));
        large.querySelector(".large").focus(); // the button that had it is gone
      });
      if (other === sheet) button.setAttribute("aria-current", "true");
      return button;
    }));
    if (!large.open) large.showModal();
    large.querySelector(".alike [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  };
  const move = (by) => enlarge(view.sheet, (view.at + by + count(view.sheet)) % count(view.sheet));
  const across = (by) => {
    const others = siblings(), other = others[(others.indexOf(view.sheet) + by + others.length) % others.length];
    if (other) enlarge(other, Math.min(view.at, count(other) - 1));
  };
  for (const button of all(".enlarge")) {
    button.addEventListener("click", (event) => {
      const image = button.querySelector("img"), box = image.getBoundingClientRect(), { columns, n } = button.dataset;
      const rows = Math.ceil(n / columns), byMouse = event.detail > 0;
      const column = byMouse ? Math.min(columns - 1, Math.floor((event.clientX - box.left) / box.width * columns)) : 0;
      const row = byMouse ? Math.min(rows - 1, Math.floor((event.clientY - box.top) / box.height * rows)) : 0;
      const sheet = document.getElementById(button.dataset.sheet) ?? button;
      enlarge(sheet, Math.min(n - 1, row * columns + column));
    });
  }
  large.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: () => move(-1), ArrowRight: () => move(1), ArrowUp: () => across(-1), ArrowDown: () => across(1) };
    if (!way[event.key]) return;
    event.preventDefault();
    way[event.key]();
  });
  large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
  large.querySelector(".close").addEventListener("click", () => large.close());
  large.querySelector(".previous").addEventListener("click", () => move(-1));
  large.querySelector(".next").addEventListener("click", () => move(1));

  addEventListener("beforeprint", () => all("details:not(.columns)").forEach((one) => { one.open = true; }));
  follow();
})();
