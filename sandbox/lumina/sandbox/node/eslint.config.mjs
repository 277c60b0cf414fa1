// Reads code that a model wrote. The code under test can't change a word of this: inline configuration is off.
import js from "@eslint/js";
import globals from "globals";

export default [
  {
    files: ["**/*.js"],
    ...js.configs.recommended,
    languageOptions: {
      ecmaVersion: 2023,
      sourceType: "commonjs",
      globals: { ...globals.browser, ...globals.node, ...globals.commonjs, gsap: "readonly" },
    },
    linterOptions: { noInlineConfig: true, reportUnusedDisableDirectives: "off" },
    rules: {
      ...js.configs.recommended.rules,
      "no-constant-condition": ["error", { checkLoops: "all" }],
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-restricted-globals": ["error", "fetch", "XMLHttpRequest", "WebSocket"],
      "no-unused-vars": "warn",
      "no-use-before-define": ["error", { functions: false, classes: true, variables: false }],
    },
  },
];
