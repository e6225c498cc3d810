#!/usr/bin/env python3
"""The set-up scripts for people's own guests: test_setup_scripts.py SOURCE

Each runs in a made-up system: its own os-release, sysfs and package manager, and a PATH with nothing else. The
Debian one also looks at a real Debian 13 (a root of scripts/root.sh), where there is one.
"""
import os
import shutil
import subprocess
import sys
import tempfile

SOURCE = sys.argv[1]
TOOLS = ('bash sh env sed grep sort head tail tr cut cat readlink timeout sleep id mkdir touch rm echo '
         'dirname basename').split()

SYSTEMS = {
    'debian': ('ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
               'apt-get', 'linux-image-amd64'),
    'ubuntu': ('ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04.3 LTS"\n',
               'apt-get', 'linux-modules-extra-6.12.1-generic'),
    'fedora': ('ID=fedora\nVERSION_ID=41\nPRETTY_NAME="Fedora Linux 41 (Server)"\n',
               'dnf', 'kernel-modules-6.12.1-generic'),
}

# What the made-up programs do. $S is the made-up system's folder; calls that change it are noted in $S/calls.
PROGRAMS = {
    'uname': 'cat $S/kernel',
    'id': '[ "$1" = -u ] && echo 0 || echo user render',
    'modinfo': '[ -e $S/has-driver ]',
    'modprobe': 'echo "modprobe $*" >>$S/calls; [ ! -e $S/has-device ] || ln -sf x $S/node',
    'dpkg': 'echo amd64',
    'dpkg-query': '[ -e $S/mesa ] || exit 1; printf "installed %s-1ubuntu1\\n" "$(cat $S/mesa)"',
    'rpm': '[ -e $S/mesa ] || { echo "package mesa-vulkan-drivers is not installed"; exit 1; }; cat $S/mesa',
    'apt-cache': 'exit 0',
    'package-manager': r'''
        echo "$*" >>$S/calls
        [ ! -e $S/no-network ] || { echo "E: Could not resolve host" >&2; exit 100; }
        case "$*" in
            *update*) exit 0 ;;
            *mesa-vulkan-drivers*)
                cat $S/mesa-offered >$S/mesa
                mkdir -p $S/usr/share/vulkan/icd.d
                touch $S/usr/share/vulkan/icd.d/virtio_icd.x86_64.json
                [ ! -e $S/vulkaninfo ] || { cat $S/vulkaninfo >$S/bin/vulkaninfo; chmod +x $S/bin/vulkaninfo; } ;;
            *linux-* | *kernel-*) [ ! -e $S/kernel-works ] || touch $S/has-driver ;;
        esac''',
}


class System:
    """A made-up guest in a folder, in good order but without Mesa."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        release, manager, self.kernel_package = SYSTEMS[name]
        os.makedirs(self.path('bin'))
        os.makedirs(self.path('etc'))
        for tool in TOOLS + ['chmod', 'ln']:
            os.symlink(shutil.which(tool), self.path('bin', tool)) if tool not in PROGRAMS else None
        for program, text in PROGRAMS.items():
            if program in ('apt-cache', 'dpkg', 'dpkg-query') and manager == 'dnf':
                continue
            if program == 'rpm' and manager != 'dnf':
                continue
            self.program(manager if program == 'package-manager' else program, text)
        self.write('etc/os-release', release)
        self.write('kernel', '6.12.1-generic\n')
        self.write('has-driver', '')
        self.write('mesa-offered', '25.0.7\n')
        self.offer_vulkan('Virtio-GPU Venus (llvmpipe (LLVM 19.1.7, 256 bits))')
        node = self.path('sys/class/drm/renderD128/device')
        os.makedirs(os.path.join(node, 'virtio3'))
        os.symlink('../../../bus/pci/drivers/virtio-pci', os.path.join(node, 'driver'))
        os.symlink('../../../../bus/virtio/drivers/virtio_gpu', os.path.join(node, 'virtio3/driver'))

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, text):
        with open(self.path(name), 'w', encoding='utf-8') as file:
            file.write(text)

    def program(self, name, text):
        self.write('bin/' + name, '#!/bin/sh\nS=%s\n%s\n' % (self.folder, text))
        os.chmod(self.path('bin', name), 0o755)

    def offer_vulkan(self, device):
        self.write('vulkaninfo', '#!/bin/sh\necho "	deviceName        = %s"\n' % device)

    def remove(self, name):
        path = self.path(name)
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)

    def calls(self):
        try:
            with open(self.path('calls'), encoding='utf-8') as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def run(self, *args):
        """Run a copy of the script alone. Returns its exit code, output and error lines."""
        script = shutil.copy(os.path.join(SOURCE, 'guest', 'setup-%s.sh' % self.name), self.folder)
        done = subprocess.run([script, *args], env={'PATH': self.path('bin'), 'SETUP_ROOT': self.folder},
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                              check=False)
        return done.returncode, done.stdout, done.stderr.splitlines()


def check(condition, *message):
    if not condition:
        raise AssertionError(' '.join(str(part) for part in message))


def test_installs_and_twice_is_once(system):
    code, out, errors = system.run()
    check(code == 0, code, out, errors)
    check('Virtio-GPU Venus' in out and 'accelerated' in out, out)
    check(any('mesa-vulkan-drivers' in call for call in system.calls()), system.calls())
    before = system.calls()
    code, out, errors = system.run()
    check(code == 0 and system.calls() == before, 'the second run did something:', system.calls())


def test_check_changes_nothing(system):
    code, out, errors = system.run('--check')
    check(code == 1 and not system.calls(), code, system.calls())
    check('no Mesa' in out and 'not tried' in out, out)
    check(len(errors) == 1, errors)


def test_old_mesa(system):
    system.write('mesa-offered', '23.2.1\n')
    code, out, errors = system.run()
    check(code == 1 and len(errors) == 1 and '23.2.1' in errors[0] and '24.0' in errors[0], code, out, errors)


def test_other_system(system):
    system.write('etc/os-release', 'ID=arch\nPRETTY_NAME="Arch Linux"\n')
    code, _, errors = system.run()
    check(code == 1 and len(errors) == 1 and 'Arch Linux' in errors[0], code, errors)
    check(not system.calls(), system.calls())


def test_old_system(system):
    system.write('etc/os-release', 'ID=%s\nVERSION_ID="9"\nPRETTY_NAME="Old 9"\n' % system.name)
    code, _, errors = system.run()
    check(code == 1 and len(errors) == 1 and 'too old' in errors[0], code, errors)


def test_old_kernel(system):
    system.write('kernel', '5.10.0-30-amd64\n')
    code, _, errors = system.run()
    check(code == 1 and len(errors) == 1 and '5.16' in errors[0], code, errors)


def test_kernel_without_driver(system):
    system.remove('has-driver')
    code, out, _ = system.run('--check')
    check(code == 1 and system.kernel_package in out and not system.calls(), code, out)
    code, out, errors = system.run()
    check(code == 1 and 'reboot' in errors[-1] and system.kernel_package in ' '.join(system.calls()), code, errors)
    system.write('kernel-works', '')
    code, out, errors = system.run()
    check(code == 0, code, out, errors)


def test_no_network(system):
    system.write('no-network', '')
    code, _, errors = system.run()
    check(code == 1 and 'failed' in errors[-1], code, errors)


def test_no_device(system):
    system.remove('sys')
    code, out, errors = system.run()
    check(code == 1 and 'no virtio-gpu' in out and 'pearvisor run' in out, code, out)
    check(len(errors) == 1, errors)


def test_not_venus(system):
    system.offer_vulkan('llvmpipe (LLVM 19.1.7, 256 bits)')
    code, out, errors = system.run()
    check(code == 1 and 'not Virtio-GPU Venus' in out, code, out)


def test_usage(system):
    code, out, _ = system.run('--help')
    check(code == 0 and '--check' in out, code, out)
    code, _, errors = system.run('--nonsense')
    check(code == 2 and len(errors) == 1, code, errors)


def test_common_part_is_the_same():
    parts = set()
    for name in SYSTEMS:
        with open(os.path.join(SOURCE, 'guest', 'setup-%s.sh' % name), encoding='utf-8') as file:
            head, mark, tail = file.read().partition('# ---- From here on')
            check(mark, name, 'has no common part')
            parts.add(tail)
    check(len(parts) == 1, 'the common parts of the set-up scripts differ')


def test_in_a_real_debian():
    """In Debian 13 with its own Mesa: everything is found, and a GPU is what lacks."""
    known = subprocess.run([os.path.join(SOURCE, 'scripts/root.sh'), '--path', 'trixie-stock'],
                           capture_output=True, text=True, check=False)
    if known.returncode != 0:
        print('    not tried:', known.stderr.strip())
        return
    done = subprocess.run(
        [os.path.join(SOURCE, 'scripts/in-root.sh'), 'trixie-stock', '--bind', os.path.join(SOURCE, 'guest'),
         os.path.join(SOURCE, 'guest/setup-debian.sh'), '--check'],
        capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 125:
        print('    not tried:', done.stderr.strip())
        return
    check(done.returncode == 1, done)
    check('Debian GNU/Linux 13' in done.stdout, done.stdout)
    check('mesa     25.' in done.stdout and 'with Venus: fine' in done.stdout, done.stdout)
    if not os.path.exists('/dev/dri'):
        check('no virtio-gpu in this machine' in done.stdout, done.stdout)


def main():
    failed = 0
    for name, test in sorted(globals().items()):
        if not name.startswith('test_'):
            continue
        for system in SYSTEMS if test.__code__.co_argcount else [None]:
            what = ' '.join(filter(None, (system, name[5:].replace('_', ' '))))
            with tempfile.TemporaryDirectory() as folder:
                try:
                    test(*([System(system, folder)] if system else []))
                    print('ok', what)
                except AssertionError as error:
                    failed += 1
                    print('FAILED', what, '\n   ', error)
    return 1 if failed else 0


sys.exit(main())
