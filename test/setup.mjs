/**
 * Makes a fresh clone ready to run: npm packages, the build, a GPU driver. Every step is skipped where it is up to
 * date, so the npm scripts call this first each time. Needs nothing but Node.
 *
 *   node test/setup.mjs           do what is missing
 *   node test/setup.mjs --tests   fetch what only tests use, too: a second software driver, where apt has it
 *   node test/setup.mjs --check   say what is missing and change nothing; exit code 1 if anything is
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const OLDEST_NODE = [20, 19];
const OLDEST_MESA = 25; // Dawn lists no adapter on Debian 12's own 22.3.6; 25.0.7 works
const DRIVER_PACKAGES = ['mesa-vulkan-drivers', 'libvulkan1'];
const DRIVER_ANSWER = 'node_modules/.cache/gpu-driver.json';
/** Where test/second-driver.ts looks for the manifest of SwiftShader. */
const SECOND_DRIVER = 'node_modules/.cache/second-driver';
const SWIFTSHADER = ['libvk_swiftshader.so', 'vk_swiftshader_icd.json'];
const SWIFTSHADER_FOLDER = 'usr/lib/chromium';
const SWIFTSHADER_PACKAGE = 'chromium-common';
const FETCH_MS = 30_000;
const HIDDEN_LOCK = 'node_modules/.package-lock.json';

const checkOnly = process.argv.includes('--check');
const started = Date.now();
process.chdir(fileURLToPath(new URL('..', import.meta.url)));

checkNode();
installPackages();
buildSources();
const adapter = findDriver();
if (process.argv.includes('--tests')) fetchSecondDriver();
say(`ready in ${seconds(started)}; GPU adapter: ${adapter}`);

// --- Node -------------------------------------------------------------------------------------------------------

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1])) return;
  stop(`Node ${process.versions.node} is too old; install Node ${OLDEST_NODE.join('.')} or newer`);
}

// --- npm packages -----------------------------------------------------------------------------------------------

function installPackages() {
  if (packagesMatchLock()) return;
  missing('npm packages are missing or differ from package-lock.json');
  const flags = ['--ignore-scripts', '--include=dev', '--no-audit', '--no-fund'];
  step('installing npm packages (npm ci)', 'npm', ['ci', ...flags]);
}

/** True where npm's own record of what it installed names the versions of the lock file. */
function packagesMatchLock() {
  if (!fs.existsSync(HIDDEN_LOCK)) return false;
  const wanted = readJson('package-lock.json').packages;
  const installed = readJson(HIDDEN_LOCK).packages;
  const same = (path) => installed[path]?.version === wanted[path]?.version;
  const needed = Object.keys(wanted).filter((path) => path !== '' && !wanted[path].optional);
  return needed.every((path) => path in installed && same(path)) && Object.keys(installed).every(same);
}

// --- build ------------------------------------------------------------------------------------------------------

function buildSources() {
  if (checkOnly) return; // the build itself is the only test of whether it is stale
  const label = fs.existsSync('packages/cli/dist') ? '' : 'building (tsc -b)';
  step(label, process.execPath, ['node_modules/typescript/bin/tsc', '-b']);
}

// --- GPU driver -------------------------------------------------------------------------------------------------

/** The name of an adapter Dawn can open; installs a software driver where there is none and it may. */
function findDriver() {
  const key = driverKey();
  const known = fs.existsSync(DRIVER_ANSWER) ? readJson(DRIVER_ANSWER) : undefined;
  if (known?.key === key) return known.adapter;

  let found = openAdapter();
  if (!found.adapter) {
    missing(`Dawn finds no GPU adapter${found.reason ? ` (${found.reason})` : ''}`);
    installDriver();
    found = openAdapter();
    if (!found.adapter) stop(`the driver was installed, but Dawn still opens no adapter: ${found.reason}`);
  }
  if (!checkOnly) {
    fs.mkdirSync('node_modules/.cache', { recursive: true });
    fs.writeFileSync(DRIVER_ANSWER, JSON.stringify({ key: driverKey(), adapter: found.adapter }));
  }
  return found.adapter;
}

/** Changes whenever Dawn, a Vulkan driver manifest, or a variable that selects drivers does. */
function driverKey() {
  const { env } = process;
  const variables = Object.keys(env).filter((name) => /^(VK_|DAWNNODE_|MESA_VK_|DRI_PRIME)/.test(name));
  const folders = [
    ...(env.XDG_CONFIG_HOME || join(homedir(), '.config')).split(delimiter),
    ...(env.XDG_DATA_HOME || join(homedir(), '.local/share')).split(delimiter),
    ...(env.XDG_DATA_DIRS || '').split(delimiter),
    ...['/etc', '/usr/local/etc', '/usr/local/share', '/usr/share'],
  ].map((folder) => join(folder, 'vulkan/icd.d'));
  const named = [env.VK_DRIVER_FILES, env.VK_ICD_FILENAMES, env.VK_ADD_DRIVER_FILES].flatMap(
    (list) => list?.split(delimiter) ?? [],
  );
  const files = [
    `node_modules/webgpu/dist/${process.platform}-${process.arch}/dawn.node`,
    ...named,
    ...folders
      .filter((folder) => fs.existsSync(folder))
      .flatMap((folder) => fs.readdirSync(folder).map((file) => join(folder, file))),
  ];
  const facts = [
    ...variables.sort().map((name) => `${name}=${env[name]}`),
    ...files.map((file) => `${file} ${fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs}`),
  ];
  return createHash('sha256').update(facts.join('\n')).digest('hex');
}

/** Opens and closes a device in a child process, because Dawn may abort the process it runs in. */
function openAdapter() {
  const program = `
    const { create } = await import('webgpu');
    const gpu = create([]); // held to the end: dropping it while a device lives aborts the process
    const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
    if (!adapter) process.exit(1);
    const device = await adapter.requestDevice();
    device.destroy();
    console.log(JSON.stringify([adapter.info.device, adapter.info.description].filter(Boolean).join(', ')));
    process.exit(0);`;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
    timeout: 120_000,
  });
  if (child.status === 0) return { adapter: JSON.parse(child.stdout.trim().split('\n').pop()) };
  const lines = `${child.stderr}`.split('\n').filter((line) => /vk|dawn|adapter|cannot/i.test(line));
  return { reason: (lines[0] ?? child.error?.message ?? child.signal ?? '').trim().slice(0, 200) };
}

// --- a software driver from apt ---------------------------------------------------------------------------------

function installDriver() {
  if (process.platform !== 'linux' || !runs('apt-get', ['--version'])) {
    stop(`${howToInstall()}\nthen run this again`);
  }
  const root = process.getuid() === 0;
  if (root) step('reading the package lists (apt-get update)', 'apt-get', ['-qq', 'update']);
  const plan = planDriver();
  if (!root) stop(`type this, then run it again:\n  ${plan.command}`);

  say(`installing a software GPU driver: ${DRIVER_PACKAGES.join(' and ')} from ${plan.origin}`);
  const parts = plan.source ? temporarySources(plan.source) : undefined;
  const sources = parts ? ['-o', `Dir::Etc::sourceparts=${parts}`] : [];
  if (parts) step(`reading the package list of ${plan.suite}`, 'apt-get', ['-qq', ...sources, 'update']);
  step('installing', 'apt-get', ['-qq', '-y', ...sources, ...plan.install]);
  say(`installed mesa-vulkan-drivers ${aptPolicy('mesa-vulkan-drivers').installed}`);
}

/** Where a recent enough Mesa comes from: the release itself, or on Debian its backports. */
function planDriver() {
  const install = ['--no-install-recommends', 'install', ...DRIVER_PACKAGES];
  const { candidate } = aptPolicy('mesa-vulkan-drivers');
  if (!candidate)
    stop('apt does not know mesa-vulkan-drivers; type `sudo apt-get update`, then run this again');
  const codename = osRelease().VERSION_CODENAME;
  if (mesaMajor(candidate) >= OLDEST_MESA) {
    const command = `sudo apt-get install -y ${DRIVER_PACKAGES.join(' ')}`;
    return { origin: `${codename}, Mesa ${candidate}`, suite: codename, install, command };
  }
  if (osRelease().ID !== 'debian') {
    stop(`this release has Mesa ${candidate}, and Dawn needs ${OLDEST_MESA}.0 or newer: ${howToInstall()}`);
  }
  const suite = `${codename}-backports`;
  const mirror = aptMirror(codename);
  const source = aptMirror(suite) ? undefined : `deb ${aptKeyring()}${mirror} ${suite} main`;
  const addSource = source
    ? `echo '${source}' | sudo tee /etc/apt/sources.list.d/backports.list && sudo apt-get update && `
    : '';
  return {
    origin: `${suite} (Dawn does not open the release's own Mesa ${candidate})`,
    suite,
    source,
    install: ['-t', suite, ...install],
    command: `${addSource}sudo apt-get install -y -t ${suite} ${DRIVER_PACKAGES.join(' ')}`,
  };
}

/** A folder with copies of the system's source lists and one more line; the system's own stay as they are. */
function temporarySources(line) {
  const folder = fs.mkdtempSync(join(tmpdir(), 'cohesin-sources-'));
  process.on('exit', () => fs.rmSync(folder, { recursive: true }));
  const system = '/etc/apt/sources.list.d';
  const lists = fs.existsSync(system)
    ? fs.readdirSync(system).filter((file) => /\.(list|sources)$/.test(file))
    : [];
  for (const file of lists) fs.copyFileSync(join(system, file), join(folder, file));
  fs.writeFileSync(join(folder, 'cohesin-backports.list'), `${line}\n`);
  return folder;
}

function aptPolicy(name) {
  const text = output('apt-cache', ['policy', name]);
  const field = (label) => text.match(new RegExp(`${label}: (\\S+)`))?.[1];
  const known = (version) => (version === '(none)' ? undefined : version);
  return { installed: known(field('Installed')), candidate: known(field('Candidate')) };
}

/** The address this machine already uses for a suite, such as `bookworm`; undefined where it uses none. */
function aptMirror(suite) {
  return output('apt-cache', ['policy']).match(new RegExp(`^ *-?\\d+ (\\S+) ${suite}/main `, 'm'))?.[1];
}

function aptKeyring() {
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
  return fs.existsSync(keyring) ? `[signed-by=${keyring}] ` : '';
}

function howToInstall() {
  const mesa = `Mesa ${OLDEST_MESA}.0 or newer`;
  if (process.platform !== 'linux') return 'install the driver of your GPU';
  if (runs('dnf', ['--version'])) return 'type: sudo dnf install mesa-vulkan-drivers vulkan-loader';
  if (runs('pacman', ['--version'])) return 'type: sudo pacman -S vulkan-swrast vulkan-icd-loader';
  return `install the Vulkan driver of your GPU, or ${mesa} for its software driver (lavapipe)`;
}

// --- a second software driver, for the test of devices that differ ----------------------------------------------

/** Unpacks SwiftShader from apt's package, aside from the system. Tried once; a test is skipped where it fails. */
function fetchSecondDriver() {
  const installed = join('/', SWIFTSHADER_FOLDER, SWIFTSHADER[0]);
  if (process.env.COHESIN_SECOND_DRIVER || fs.existsSync(installed) || fs.existsSync(SECOND_DRIVER)) return;
  if (process.platform !== 'linux' || !runs('apt-get', ['--version'])) return;
  fs.mkdirSync(SECOND_DRIVER, { recursive: true });
  const begun = Date.now();
  process.stderr.write(`setup: fetching SwiftShader from ${SWIFTSHADER_PACKAGE} … `);
  const aside = fs.mkdtempSync(join(tmpdir(), 'cohesin-driver-'));
  const within = (command, args) => {
    const timeout = Math.max(1, FETCH_MS - (Date.now() - begun));
    return spawnSync(command, args, { cwd: aside, stdio: 'ignore', timeout }).status === 0;
  };
  const root = process.getuid() === 0;
  const apt = (args) =>
    within('apt-get', ['-qq', ...(root ? ['-o', 'APT::Sandbox::User=root'] : []), ...args]);
  const download = () => apt(['download', SWIFTSHADER_PACKAGE]);
  const isThere = download() || (root && apt(['update']) && download());
  const [deb] = fs.readdirSync(aside).filter((file) => file.endsWith('.deb'));
  const isUnpacked = isThere && within('dpkg-deb', ['-x', deb, '.']);
  const files = SWIFTSHADER.map((file) => join(aside, SWIFTSHADER_FOLDER, file));
  const isFetched = isUnpacked && files.every((file) => fs.existsSync(file));
  if (isFetched)
    for (const [i, file] of files.entries()) fs.copyFileSync(file, join(SECOND_DRIVER, SWIFTSHADER[i]));
  fs.rmSync(aside, { recursive: true });
  process.stderr.write(
    isFetched
      ? `${seconds(begun)}\n`
      : `not to be had; no other test needs it (remove ${SECOND_DRIVER} to try again)\n`,
  );
}

// --- helpers ----------------------------------------------------------------------------------------------------

function mesaMajor(version) {
  return Number(version.replace(/^\d+:/, '').split('.')[0]);
}

function osRelease() {
  const lines = fs.readFileSync('/etc/os-release', 'utf8').split('\n');
  return Object.fromEntries(lines.map((line) => line.replace(/"/g, '').split('=')));
}

/** Runs a command; shows its output only when it fails, and then stops. An empty label announces nothing. */
function step(label, command, args) {
  const begun = Date.now();
  if (label) process.stderr.write(`setup: ${label} … `);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const child = spawnSync(command, args, {
    encoding: 'utf8',
    env,
    shell: process.platform === 'win32' && command === 'npm',
    maxBuffer: 1 << 28,
  });
  if (label) process.stderr.write(`${child.status === 0 ? seconds(begun) : 'failed'}\n`);
  if (child.status === 0) return;
  process.stderr.write(`${child.stdout ?? ''}${child.stderr ?? ''}`);
  stop(`\`${[command, ...args].join(' ')}\` failed${child.error ? `: ${child.error.message}` : ''}`);
}

function missing(what) {
  say(what);
  if (checkOnly) stop(`nothing was changed; \`npm run setup\` does it`);
}

function output(command, args) {
  return spawnSync(command, args, { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } }).stdout ?? '';
}

function runs(command, args) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

function readJson(file) {
  return JSON.parse(fs.readFileSync(file, 'utf8'));
}

function seconds(since) {
  return `${((Date.now() - since) / 1000).toFixed(1)} s`;
}

function say(line) {
  process.stderr.write(`setup: ${line}\n`);
}

function stop(line) {
  say(line);
  process.exit(1);
}
