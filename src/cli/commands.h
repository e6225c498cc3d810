/* The subcommands, one cmd_<name>.c each.
 *
 * argv[0] is the subcommand's name; optind is reset, so getopt_long() can be used at once.
 * Exit status: 0 it worked; 1 it did not, and a line on standard error says why; 2 the command line
 * was wrong.
 */
#ifndef PV_CLI_COMMANDS_H
#define PV_CLI_COMMANDS_H

#define PV_EXIT_OK     0
#define PV_EXIT_FAILED 1
#define PV_EXIT_USAGE  2

int pv_cmd_doctor(int argc, char **argv);
int pv_cmd_gpu(int argc, char **argv);
int pv_cmd_engine(int argc, char **argv);
int pv_cmd_image(int argc, char **argv);
int pv_cmd_run(int argc, char **argv);
int pv_cmd_screenshot(int argc, char **argv);
int pv_cmd_stats(int argc, char **argv);
int pv_cmd_view(int argc, char **argv);
int pv_cmd_vtest(int argc, char **argv);

/* Say what is wrong with the command line of `command` ("" for pearvisor itself) and where help is.
 * Returns PV_EXIT_USAGE. */
int pv_usage_error(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

struct option;
/* getopt_long() from the first argument to the last option, with `parse` called for each, which
 * returns 0 or an exit code. Returns that of the first that is not 0. `letters` begins with ':'. */
int pv_parse_options(int argc, char **argv, const char *letters, const struct option *names,
                     int (*parse)(void *options, int option, char **argv), void *options);
/* For a '?' or ':' of getopt_long() with opterr = 0 and an option string that begins with ':'. */
int pv_option_error(const char *command, int result, char **argv);

/* For "did you mean": `word` if it is nearer to `given` than *distance letters, which is then updated;
 * else `closest`. */
const char *pv_closer_word(const char *given, const char *word, const char *closest,
                           unsigned int *distance);

#endif
