// Finds the message that was pasted among the links of the page of all messages.
// Blanks, which stand between ‹ and ›, match anything.
(function () {
  function words(text) {
    return (text.replace(/‹[^›]*›/g, " ").toLowerCase().match(/[a-z0-9_]{2,}/g)) || [];
  }

  // How well a message fits: the share of its words that was pasted, the more the better; and
  // whether it begins as written, the earlier the better, since what is wrong is told first.
  function score(message, pasted, text) {
    if (!message.words.length) return 0;
    var there = message.words.filter(function (word) { return pasted.has(word); }).length;
    var at = text.indexOf(message.begins);
    return there / message.words.length + Math.min(there, 30) / 100 + (at < 0 ? 0 : 20 / (20 + at));
  }

  function start() {
    var box = document.getElementById("message");
    var list = document.getElementById("messages");
    var found = document.getElementById("found");
    if (!box || !list || !found || box.dataset.ready) return;
    box.dataset.ready = "yes";
    box.closest(".find-message").hidden = false;
    var all = Array.from(list.querySelectorAll("li > a")).map(function (link) {
      var begins = link.textContent.split(/‹[^›]*›/).map(function (part) { return part.trim(); });
      return {
        link: link,
        words: words(link.textContent),
        begins: (begins.find(Boolean) || "").toLowerCase()
      };
    });
    function look() {
      var pasted = new Set(words(box.value));
      var text = box.value.toLowerCase();
      var best = all
        .map(function (one) { return { link: one.link, score: score(one, pasted, text) }; })
        .filter(function (one) { return one.score >= 0.6; })
        .sort(function (a, b) { return b.score - a.score; })
        .slice(0, 10);
      found.replaceChildren.apply(found, best.map(function (one) {
        var item = document.createElement("li");
        item.append(one.link.cloneNode(true));
        return item;
      }));
      list.hidden = best.length > 0;
    }
    box.addEventListener("input", look);
    look();
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
