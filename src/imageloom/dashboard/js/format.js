// How numbers and times read. Times are the viewer's own; the exact UTC time is in the title.

import { h } from "./dom.js";

// Control characters but tab and line feed, and those that turn the direction of what follows.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** The text with a sign for each character that would act on a terminal or a line, not be seen. */
export function visible(text) {
  return text.replace(UNSEEN, (each) => {
    const code = each.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code === 0x7f ? "\u2421" : `\u27e8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
  });
}

/** JSON in which such characters are written by their number, so that what is shown is what is meant. */
export const escaped = (json) => json.replace(UNSEEN, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);

const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const NUMBER = new Intl.NumberFormat();

export const number = (value) => (value === null || value === undefined ? "–" : NUMBER.format(value));
export const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(share * 100)} %`);

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (value >= size) return `${(value / size).toFixed(value >= 10 * size ? 0 : 1)} ${unit}`;
  }
  return `${value} B`;
}

/** Seconds as a person says them: 40 ms, 0.8 s, 12 s, 3 min 20 s, 2 h 5 min. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds > 0 && seconds < 0.095) return `${Math.ceil(seconds * 1000)} ms`;
  if (seconds < 10 && !Number.isInteger(seconds)) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const [minutes, hours, days] = [Math.floor(whole / 60), Math.floor(whole / 3600), Math.floor(whole / 86400)];
  if (minutes < 60) return whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${days} days`;
}

/** Seconds between two times; the second is now unless given. */
export function between(start, end) {
  if (!start) return null;
  return (new Date(end ?? Date.now()) - new Date(start)) / 1000;
}

/** A time as an element that says how long ago, and on hovering exactly when. It ticks. */
export function ago(time) {
  if (!time) return "–";
  return h("time", { datetime: time, "data-tick": "ago", title: `${EXACT.format(new Date(time))} (${time})` }, distance(time));
}

/** A time to come as an element that says how far off it is. */
export function until(time) {
  const seconds = Math.max(0, between(new Date().toISOString(), time));
  const [unit, size] = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]].find(([, each]) => seconds >= 2 * each) ?? ["second", 1];
  return h("time", { datetime: time, title: EXACT.format(new Date(time)) }, RELATIVE.format(Math.floor(seconds / size), unit));
}

/** How long it has been since then, as an element that ticks. */
export function since(time) {
  if (!time) return "–";
  return h("time", { datetime: time, "data-tick": "since", title: EXACT.format(new Date(time)) }, elapsed(time));
}

/** Bring what `ago` and `since` say up to now. */
export function tick() {
  for (const each of document.querySelectorAll("time[data-tick]")) {
    const text = each.dataset.tick === "ago" ? distance(each.dateTime) : elapsed(each.dateTime);
    if (each.textContent !== text) each.textContent = text;
  }
}

function distance(time) {
  const then = new Date(time);
  // The server's clock may be a little ahead of this one: nothing here is yet to come.
  const seconds = Math.min(0, (then - Date.now()) / 1000);
  for (const [unit, size, limit] of [["second", 1, 60], ["minute", 60, 60], ["hour", 3600, 48], ["day", 86400, 14]]) {
    if (Math.abs(seconds / size) < limit) return RELATIVE.format(Math.round(seconds / size), unit);
  }
  return EXACT.format(then);
}

/** Whole seconds: what ticks each second has no use for tenths. */
const elapsed = (time) => duration(Math.max(0, Math.floor(between(time))));

export const exact = (time) => (time ? h("time", { datetime: time, title: time }, EXACT.format(new Date(time))) : "–");
/** The end of an id, which is what differs between two of the same minute. */
export const shortId = (id) => (id.length > 18 ? `${id.slice(0, id.indexOf("_") + 1)}…${id.slice(-8)}` : id);
