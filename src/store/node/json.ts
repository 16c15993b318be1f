/** JSON as the stock store service spells it: a space after commas and colons, ASCII alone. Clients compare it as text. */
type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json };

export function toJson(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(toJson).join(', ')}]`;
  if (typeof value === 'object' && value !== null) {
    return `{${Object.entries(value)
      .map(([name, field]) => `${toJson(name)}: ${toJson(field)}`)
      .join(', ')}}`;
  }
  return JSON.stringify(value).replace(
    /[\u0080-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
