// The fonts of the Jupyter widgets and the script of the inspector lie beside their script; by its names they would
// be looked for beside the page.
const beside = new URL("vendor", document.currentScript.src).href;
require.config({
  paths: {
    "@jupyter-widgets/html-manager": `${beside}/html-manager`,
    "@jupyter-widgets/html-manager/dist": beside,
    anywidget: `${beside}/anywidget`,
  },
});
