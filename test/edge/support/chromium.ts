/** Serves files of the lane to a headless Chromium and opens a page there. */
import { existsSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';
import { type Browser, chromium, type Page } from 'playwright-core';
import type { BundleFile } from './bundle.js';
import { lane } from './runtimes.js';

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.wasm': 'application/wasm',
};

const ISOLATION = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
};

/** What to show where Chromium is missing. */
export const CHROMIUM = {
  path: process.env.MOONCAKE_CHROMIUM,
  reason: 'no Chromium found',
  enable: 'apt-get install chromium, or MOONCAKE_CHROMIUM=/path/to/chromium npm run test:edge',
};

export interface Site {
  page: Page;
  url: string;
  close(): Promise<void>;
}

/**
 * Opens `/` in a fresh browser. `files` are served by name, the lane's installed packages below `/node_modules/` and its
 * compiled tests below `/test/`. An isolated page (the default) is cross-origin isolated, so shared memory works.
 */
export async function open(files: BundleFile[], { isolated = true } = {}): Promise<Site> {
  const memory = new Map(files.map(({ name, contents }) => [`/${name}`, contents]));
  const server: Server = createServer((request, response) => {
    const path = normalize(new URL(request.url ?? '/', 'http://localhost').pathname);
    const name = path === '/' ? '/index.html' : path;
    const onDisk = join(lane, name);
    const allowed = name.startsWith('/node_modules/') || name.startsWith('/test/');
    const body = memory.get(name) ?? (allowed && existsSync(onDisk) ? readFileSync(onDisk) : undefined);
    response.writeHead(body ? 200 : 404, {
      'content-type': TYPES[extname(name)] ?? 'application/octet-stream',
      ...(isolated ? ISOLATION : {}),
    });
    response.end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  let browser: Browser | undefined;
  const close = async () => {
    await browser?.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  try {
    browser = await chromium.launch({
      executablePath: CHROMIUM.path,
      // Chromium's sandbox refuses to run as root; containers have a small /dev/shm.
      chromiumSandbox: process.getuid?.() !== 0,
      args: ['--disable-dev-shm-usage'],
    });
    const page = await browser.newPage();
    const problems: string[] = [];
    page.on('pageerror', (error) => problems.push(String(error)));
    await page.goto(url);
    if (problems.length > 0) throw new Error(`the page failed: ${problems.join('; ')}`);
    return { page, url, close };
  } catch (error) {
    await close();
    throw error;
  }
}
