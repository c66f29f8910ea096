import { defineConfig } from "vite";

// `base: "./"` keeps imports between chunks relative, so the files work under any STATIC_URL.
export default defineConfig({
  base: "./",
  build: {
    outDir: "dist",
    manifest: true,
    target: "es2022",
    modulePreload: false, // the template tag writes the preload links; the polyfill would be dead weight
    rollupOptions: {
      input: { pages: "src/pages.ts", upload: "src/upload.ts", viewer: "src/viewer.ts" },
    },
  },
  worker: { format: "es" },
});
