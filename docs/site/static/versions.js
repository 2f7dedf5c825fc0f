// The switch between versions of the documentation: what there is stands in versions.json, beside their directories.

document.addEventListener("DOMContentLoaded", async () => {
  const select = document.querySelector(".versions select");
  if (!select) return; // one version alone was built
  const root = new URL(document.documentElement.dataset.content_root, location.href);
  const answer = await fetch(new URL("../versions.json", root)).catch(() => null);
  if (!answer?.ok) return;
  const versions = await answer.json();
  select.replaceChildren(
    ...versions.map(({ name }) => new Option(name, name, name === select.dataset.version, name === select.dataset.version)),
  );
  select.addEventListener("change", async () => {
    const other = new URL(`../${versions.find(({ name }) => name === select.value).path}`, root);
    const page = new URL(location.href.slice(root.href.length), other);
    const there = await fetch(page, { method: "HEAD" }).catch(() => null);
    location.href = there?.ok ? page.href : other.href; // not every version has every page
  });
});
