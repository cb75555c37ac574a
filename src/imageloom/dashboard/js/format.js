// How numbers and times read. Times are the viewer's own; the exact UTC time is in the title.

import { h } from "./dom.js";

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

/** Seconds as a person says them: 0.8 s, 12 s, 3 min 20 s, 2 h 5 min. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
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

/** A time as an element that says how long ago, and on hovering exactly when. */
export function ago(time) {
  if (!time) return "–";
  const then = new Date(time);
  const seconds = (then - Date.now()) / 1000;
  let text = EXACT.format(then);
  for (const [unit, size] of [["second", 1], ["minute", 60], ["hour", 3600], ["day", 86400]]) {
    const limit = { second: 60, minute: 60, hour: 48, day: 14 }[unit];
    if (Math.abs(seconds / size) < limit) {
      text = RELATIVE.format(Math.round(seconds / size), unit);
      break;
    }
  }
  return h("time", { datetime: time, title: `${EXACT.format(then)} (${time})` }, text);
}

/** A time to come as an element that says how far off it is. */
export function until(time) {
  const seconds = Math.max(0, between(new Date().toISOString(), time));
  const [unit, size] = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]].find(([, each]) => seconds >= 2 * each) ?? ["second", 1];
  return h("time", { datetime: time, title: EXACT.format(new Date(time)) }, RELATIVE.format(Math.floor(seconds / size), unit));
}

export const exact = (time) => (time ? h("time", { datetime: time, title: time }, EXACT.format(new Date(time))) : "–");
/** The end of an id, which is what differs between two of the same minute. */
export const shortId = (id) => (id.length > 18 ? `${id.slice(0, id.indexOf("_") + 1)}…${id.slice(-8)}` : id);
