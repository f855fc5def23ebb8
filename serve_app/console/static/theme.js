// Before anything is drawn, so that no page flashes in the other colours.
"use strict";
try {
  const theme = localStorage.getItem("theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* no storage: the system's colours */ }
