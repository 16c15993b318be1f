/** Text of files and arguments for a terminal, which must not take their control characters for commands. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
