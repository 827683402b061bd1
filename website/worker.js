// Search runs in a worker, and browsers start none for pages that are read from a disk: there its
// script runs within a hidden frame, which speaks and hears like a worker.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(address) {
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.document.open(); // else Firefox empties the frame once more
      inside.document.write("<body></body>");
      inside.document.close();
      inside.postMessage = (data) => setTimeout(() => {
        if (this.onmessage) this.onmessage(new MessageEvent("message", { data: structuredClone(data) }));
      });
      const script = inside.document.createElement("script");
      script.src = new URL(address, document.baseURI);
      script.onload = () => {
        const waiting = this.waiting;
        this.waiting = null;
        waiting.forEach((data) => this.postMessage(data));
      };
      script.onerror = (event) => { if (this.onerror) this.onerror(event); };
      inside.document.body.append(script);
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) }));
    }

    addEventListener(kind, heard) { this[`on${kind}`] = heard; }

    terminate() { this.frame.remove(); }
  };
}
