// What the installation does now.

import { show } from "../dom.js";
import { number } from "../format.js";
import { heading, section, table } from "../ui.js";

export default {
  title: "Overview",

  async show(page) {
    await page.every(2000, async () => {
      const { queues } = await page.get("/monitoring/queues");
      show(page.place, heading("Overview"),
        section("Queues", table("Queues", [
          { name: "Queue", cell: (queue) => queue.name },
          { name: "Pending", num: true, cell: (queue) => number(queue.pending) },
          { name: "Running", num: true, cell: (queue) => number(queue.running) },
          { name: "Workers", num: true, cell: (queue) => number(queue.workers) },
        ], queues, { key: (queue) => queue.name })));
    });
  },
};
