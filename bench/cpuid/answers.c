// Loaded before a program in whose libraries bench/cpuid/patching.py has replaced CPUID by UD2: answers each as the CPU
// does, but for what the environment asks for. WITHOUT_AVX512_CPUINFO: without AVX-512, VNNI, AVX-VNNI and AMX, and the
// file that it names is shown for /proc/cpuinfo. INTEL_VENDOR: the vendor is Intel.
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <ucontext.h>

#define BIT(n) (1u << (n))

// Intel's Software Developer's Manual, volume 2A, CPUID: leaf 7 holds every extension that is hidden here.
static int without_avx512, intel_vendor;

static void change(unsigned leaf, unsigned subleaf, unsigned *eax, unsigned *ebx, unsigned *ecx, unsigned *edx) {
  if (leaf == 0 && intel_vendor) {
    *ebx = 0x756e6547;  // "GenuineIntel"
    *edx = 0x49656e69;
    *ecx = 0x6c65746e;
  }
  if (!without_avx512)
    return;
  if (leaf == 7 && subleaf == 0) {
    *ebx &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
    *ecx &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
    *edx &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
  }
  if (leaf == 7 && subleaf == 1) {
    *eax &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));
    *edx &= ~(BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19));
  }
}

static void answer(int signal_number, siginfo_t *info, void *context) {
  (void)info;
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *at = (const unsigned char *)registers[REG_RIP];
  if (at[0] != 0x0f || at[1] != 0x0b) {
    signal(signal_number, SIG_DFL);
    return;
  }
  unsigned eax, ebx, ecx, edx;
  unsigned leaf = (unsigned)registers[REG_RAX], subleaf = (unsigned)registers[REG_RCX];
  __cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
  change(leaf, subleaf, &eax, &ebx, &ecx, &edx);
  registers[REG_RAX] = eax;
  registers[REG_RBX] = ebx;
  registers[REG_RCX] = ecx;
  registers[REG_RDX] = edx;
  registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void start(void) {
  without_avx512 = getenv("WITHOUT_AVX512_CPUINFO") != NULL;
  intel_vendor = getenv("INTEL_VENDOR") != NULL;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = answer;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigaction(SIGILL, &action, NULL);
}

static const char *shown(const char *path) {
  const char *instead = getenv("WITHOUT_AVX512_CPUINFO");
  return instead && path && strcmp(path, "/proc/cpuinfo") == 0 ? instead : path;
}

#define OPEN(name)                                                        \
  int name(const char *path, int flags, ...) {                            \
    va_list rest;                                                         \
    va_start(rest, flags);                                                \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                                         \
    int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);        \
    return next(shown(path), flags, mode);                                \
  }
OPEN(open)
OPEN(open64)

#define FOPEN(name)                                                       \
  FILE *name(const char *path, const char *mode) {                        \
    FILE *(*next)(const char *, const char *) = dlsym(RTLD_NEXT, #name);  \
    return next(shown(path), mode);                                       \
  }
FOPEN(fopen)
FOPEN(fopen64)
