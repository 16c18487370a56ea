// Choices of the reader, kept in the query of the address, so that a copied link shows the same view.

"use strict";
const choices = {
  get(scope, name) {
    return new URLSearchParams(location.search).get(choices.key(scope, name));
  },

  key: (scope, name) => (scope ? `${scope}.${name}` : name),

  // Set a choice; an empty one or null removes it.
  set(scope, name, value) {
    const query = new URLSearchParams(location.search), key = choices.key(scope, name);
    if (value === null || value === undefined || value === "") query.delete(key);
    else query.set(key, value);
    const text = query.toString();
    try {
      history.replaceState(history.state, "", location.pathname + (text ? `?${text}` : "") + location.hash);
    } catch (error) {
      console.info("the address cannot keep the view:", error.message); // a browser may forbid it for files
    }
  },
};
