// The page at /docs. A key that is typed in here is kept nowhere.
document.documentElement.classList.toggle(
  "dark-mode",
  matchMedia("(prefers-color-scheme: dark)").matches,
);
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#ui",
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
  validatorUrl: null,
});
